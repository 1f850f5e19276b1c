"""What a node says of itself in /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue


class Level(Enum):
    """Values as in diagnostic_msgs/DiagnosticStatus."""

    OK = b"\x00"
    WARN = b"\x01"
    ERROR = b"\x02"


@dataclass(frozen=True)
class Report:
    """One line for a person, and figures by name for a monitor."""

    level: Level
    message: str
    values: Mapping[str, str]


def status_message(name: str, hardware_id: str, state: str, report: Report) -> DiagnosticStatus:
    """A report as a message; ``state`` is the lifecycle state and comes first among the values."""
    pairs = {"state": state, **report.values}
    return DiagnosticStatus(
        level=report.level.value,
        name=name,
        message=report.message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value) for key, value in pairs.items()],
    )


def device_memory(device: str) -> str:
    """What this process holds on the device: torch's share of a GPU, resident memory on a CPU."""
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return f"{torch.cuda.memory_allocated() / 2**20:.0f} MiB"
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return f"{pages * 4096 / 2**20:.0f} MiB"
