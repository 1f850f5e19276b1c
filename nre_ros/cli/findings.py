"""What a check found: how bad it is, what it is, what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LEVELS = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Finding:
    """``advice`` is empty where nothing needs to be done."""

    level: str
    subject: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"\n{'':22}-> {self.advice}" if self.advice else ""
        return f"{self.level:<5} {self.subject:<15} {self.text}{advice}"


def asked_of_child(
    subject: str, module: str, words: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> list[Finding]:
    """Findings of a Python module that prints them as its last line, a JSON list of objects.

    In a process of its own, for what may crash or hang: drivers, compiled libraries, networks. Both become findings.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            capture_output=True, text=True, errors="replace", timeout=timeout_s, stdin=subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        advice = f"try it alone: {sys.executable} -m {module} {' '.join(words)}".rstrip()
        return [Finding("fail", subject, f"the check did not end within {timeout_s:g} s", advice)]
    try:
        return [Finding(**entry) for entry in json.loads(done.stdout.strip().rpartition("\n")[2])]
    except (json.JSONDecodeError, TypeError):
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
        how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        return [Finding("fail", subject, f"the check {how}: {lines[-1]}", f"run {sys.executable} -m {module} alone")]


def worst(findings: Iterable[Finding]) -> str:
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")
