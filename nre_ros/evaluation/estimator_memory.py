"""What one estimate needs in memory beyond its inputs, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from nre_ros.config import NreConfig
from nre_ros.evaluation.estimator_cases import Case, CaseSpec, Kind, draw_case
from nre_ros.nre import estimate_pose

POINTS = 3000
PLAIN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""Makes glibc hand freed memory back at once, so that the resident size is what is in use."""


def extra_megabytes(stride: int, threads: int) -> float | None:
    """Peak resident size during one coarse and fine estimate of 3000 points, half of their maps wrong, less the
    resident size before, with the inputs made and a small estimate done. None where Linux does not let a process
    reset its peak.
    """
    child = subprocess.run(
        [sys.executable, "-m", __name__, str(stride), str(threads)],
        env=os.environ | PLAIN_MALLOC,
        capture_output=True,
        text=True,
        check=True,
    )
    said = child.stdout.strip()
    return float(said) if said else None


def peak_above(work: Callable[[], object]) -> float | None:
    """Megabytes (1e6 bytes) by which the resident size peaks above what it is now while ``work`` runs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_megabytes("VmRSS")
        work()
        return _status_megabytes("VmHWM") - before
    except OSError:
        return None


def _measure(stride: int) -> float | None:
    small, large = (draw_case(CaseSpec("", points, stride, {Kind.RIGHT: 0.5}), 0) for points in (100, POINTS))

    def ask(case: Case) -> None:
        estimate_pose(case.xyz_map, case.camera, case.coarse, case.fine, NreConfig())

    ask(small)
    return peak_above(lambda: ask(large))


def _status_megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    measured = _measure(int(sys.argv[1]))
    print("" if measured is None else measured)
