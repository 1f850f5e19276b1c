"""The localizer node as a robot runs it: a process of its own, watched from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")


class NodeProcess:
    """``parameters`` go on the command line. A context manager: at its exit the process is gone."""

    def __init__(self, log: Path, parameters: dict[str, object], words: Sequence[str] = ()) -> None:
        self.log = log
        self._command = [sys.executable, "-m", "nre_ros.ros.localizer_node", "--ros-args", *words]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            self._command += ["-p", f"{name}:={text}"]

    def __enter__(self) -> NodeProcess:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL, 10.0)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self, number: int, patience_s: float) -> tuple[int, float]:
        """Send a signal; the exit code (-9 for one that had to be killed) and the seconds until it ended."""
        started_s = time.monotonic()
        if self.alive:
            self._process.send_signal(number)
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code, time.monotonic() - started_s

    def leftovers(self) -> list[int]:
        """Processes of the node's group that still run, or are zombies."""
        group = str(self._process.pid)
        return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _group(p) == group]

    def memory_mb(self) -> float:
        """Resident memory that is the process's own: neither mapped files nor the middleware's segments."""
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        return int(found.group(1)) / 1024 if found else 0.0

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S

    def last_words(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def _group(process: Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[2]
    except OSError:
        return ""


def shared_memory_files() -> int:
    """Files of the middleware in /dev/shm."""
    return sum(1 for path in Path("/dev/shm").glob("*fastrtps*"))
