"""The text tables of TUM RGB-D folders: ``rgb.txt``, ``depth.txt``, ``groundtruth.txt`` and ``split.txt``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

from nre_ros.errors import RecordingError
from nre_ros.geometry.pose_track import seconds

SPLIT_FILE = "split.txt"


def stamp_ns_from_text(text: str, where: str) -> int:
    """Decimal seconds to nanoseconds without rounding through a float; raises RecordingError."""
    try:
        stamp = Decimal(text)
        if stamp.is_finite() and stamp >= 0:
            return int((stamp * 10**9).to_integral_value())
    except InvalidOperation:
        pass
    raise RecordingError(f"{where} has the time {text!r}, expected seconds since some start such as 1305031102.175304")


def read_lines(path: Path) -> list[str]:
    """Lines of a text file; raises RecordingError for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from None


def read_stamped_rows(path: Path) -> Iterator[tuple[str, int, str]]:
    """Where (file and line, for errors), stamp_ns and rest of every line that is neither empty nor a comment.

    Raises RecordingError for a file that cannot be read and for bad times.
    """
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            first, *rest = text.split(maxsplit=1)
            where = f"{path} line {number}"
            yield where, stamp_ns_from_text(first, where), rest[0] if rest else ""


def read_file_list(path: Path) -> list[tuple[int, str]]:
    """Stamp_ns and file name of each line ("timestamp filename"), in the order of time; raises RecordingError."""
    rows = []
    for where, stamp_ns, name in read_stamped_rows(path):
        if not name:
            raise RecordingError(f"{where} names no file, expected 'timestamp filename'")
        rows.append((stamp_ns, name))
    return sorted(rows)


def read_roles(folder: Path) -> dict[int, str]:
    """Role ("map", "query") by stamp_ns from the folder's ``split.txt``; empty without that file."""
    path = folder / SPLIT_FILE
    return {stamp_ns: role for _, stamp_ns, role in read_stamped_rows(path)} if path.exists() else {}


def write_roles(folder: Path, roles: Mapping[int, str]) -> None:
    lines = ["# timestamp role", *(f"{seconds(stamp_ns)} {role}" for stamp_ns, role in sorted(roles.items()))]
    (folder / SPLIT_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_role(split: str | None, roles: Mapping[int, str], where: str) -> None:
    """Raises RecordingError when a split is asked for that the recording does not define."""
    if split is None or split in roles.values():
        return
    if not roles:
        raise RecordingError(f"{where} has no {SPLIT_FILE}, so it has no role {split!r}; leave --split out")
    raise RecordingError(
        f"{where} has no role {split!r}, its {SPLIT_FILE} has {', '.join(sorted(set(roles.values())))}"
    )
