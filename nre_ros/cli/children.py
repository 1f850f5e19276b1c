"""Child processes that never outlive their parent's work and tell why they failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType

from nre_ros.errors import NreError
from nre_ros.share import share_folder

_PATIENCE_S = 8.0
_TOLD_LINES = 4


class Child:
    """A Python module run as a process with its own process group; its output goes to ``log_file``.

    A context manager: at its exit the process and all its descendants are gone, asked first, then forced.
    """

    def __init__(
        self, name: str, module: str, words: Sequence[str], log_file: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._log_file = log_file
        # the same interpreter: ROS wheels set up their libraries for this environment alone
        self._command = [sys.executable, "-m", module, *words]
        self._environment = dict(environment)

    def __enter__(self) -> Child:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment,
                start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._tell(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_PATIENCE_S)
        finally:  # a second Ctrl-C ends the patience, not the clean-up
            self._tell(signal.SIGKILL)
            self._process.wait()

    def check_alive(self) -> None:
        """Raises NreError with its last words when the process has ended."""
        if self._process.poll() is not None:
            raise NreError(f"{self.name} ended with exit code {self._process.returncode}; {self.last_words()}")

    def wait(self, timeout_s: float, needs: Sequence[Child] = ()) -> None:
        """Until the process ends well. Raises NreError when it fails or hangs, or when a child it ``needs`` ends."""
        deadline = time.monotonic() + timeout_s
        while self._process.poll() is None:
            for other in needs:
                other.check_alive()
            if time.monotonic() > deadline:
                raise NreError(f"{self.name} did not end within {timeout_s:.0f} s; {self.last_words()}")
            time.sleep(0.1)
        if self._process.returncode != 0:
            words = "; ".join(child.last_words() for child in (self, *needs))
            raise NreError(f"{self.name} failed with exit code {self._process.returncode}; {words}")

    def last_words(self) -> str:
        """The end of its log, in one line."""
        text = self._log_file.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()][-_TOLD_LINES:]
        return f"{self._log_file} ends with: {' | '.join(lines) if lines else 'nothing'}"

    def _tell(self, number: int) -> None:
        """Signal whatever is left of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM unwinds the program as Ctrl-C does, so that children are cleaned up."""

    def unwind(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ros_environment(domain_id: int, log_folder: Path) -> dict[str, str]:
    """For children that talk to each other over DDS and to nobody else, with images that get through."""
    environment = dict(os.environ)
    environment.update(
        ROS_DOMAIN_ID=str(domain_id),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        ROS_LOG_DIR=str(log_folder),
        PYTHONUNBUFFERED="1",
    )
    environment.setdefault(
        "FASTRTPS_DEFAULT_PROFILES_FILE", str(share_folder() / "config" / "fastdds_large_images.xml")
    )
    prefixes = [p for p in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if sys.prefix not in prefixes:
        environment["AMENT_PREFIX_PATH"] = os.pathsep.join([sys.prefix, *prefixes])
    return environment
