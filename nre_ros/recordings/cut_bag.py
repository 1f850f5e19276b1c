"""A bag that was not closed or was cut off: what is there is read, and what is lost is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

from nre_ros.recordings.mcap_salvage import Salvaged, salvage_mcap
from nre_ros.recordings.sqlite_salvage import is_short, salvage_sqlite

_SALVAGE = {".mcap": salvage_mcap, ".db3": salvage_sqlite}
_ZSTD = b"\x28\xb5\x2f\xfd"
"""No CDR message starts so: in bags compressed message by message, every message does."""


class CutBag:
    """Reads every whole message, in the order in which they were written, of a folder or a single file.

    ``counts`` holds type and count by topic; empty when nothing could be read. ``sentence`` tells what was lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _metadata(path)
        custom = content.get("custom_data")
        self.custom_data: dict[str, str] = custom if isinstance(custom, dict) else {}
        self._files = _files(path, content)
        self.counts: dict[str, tuple[str, int]] = {}
        times = []
        for topic, kind, log_ns, _ in self._salvaged():
            self.counts[topic] = (kind, self.counts.get(topic, (kind, 0))[1] + 1)
            times.append(log_ns)
        span = (max(times) - min(times)) * 1e-9 if times else 0.0
        self.sentence = f"bag {path} {self._lost(content, len(times), span)}; what is there is read"

    def messages(self, *topics: str) -> Iterator[tuple[str, int, bytes]]:
        """Topic, time of logging (ns) and serialized message."""
        for topic, _, log_ns, raw in self._salvaged():
            if topic in topics:
                yield topic, log_ns, raw if raw[:4] != _ZSTD else DECOMPRESSORS["zstd"](raw, 0)

    def _salvaged(self) -> Iterator[Salvaged]:
        for file in self._files:
            yield from _SALVAGE[file.suffix](file)

    def _lost(self, content: dict[str, Any], count: int, span: float) -> str:
        announced = content.get("message_count")
        if isinstance(announced, int) and announced:
            return (
                f"is cut off: {count} of its {announced} messages are there{_span(span, content.get('duration'))}, "
                f"{announced - count} are lost"
            )
        beside = [f"{file.name}-wal" for file in self._files if file.with_name(f"{file.name}-wal").exists()]
        waiting = f"; {' and '.join(beside)} may hold more, which sqlite3 would put in place" if beside else ""
        return (
            f"was not closed (it has no metadata, or ends early): {count} messages over {span:.1f} s are there, the "
            f"last ones may be lost{waiting}"
        )


def _span(seconds: float, duration: Any) -> str:
    nanoseconds = duration.get("nanoseconds") if isinstance(duration, dict) else None
    return f" ({seconds:.1f} of {nanoseconds * 1e-9:.1f} s)" if isinstance(nanoseconds, int) else ""


def is_cut(path: Path) -> bool:
    """Whether a sqlite3 file of the bag is shorter than it should be, which SQLite itself may see late or never."""
    return any(file.suffix == ".db3" and is_short(file) for file in _files(path, _metadata(path)))


def _files(path: Path, content: dict[str, Any]) -> list[Path]:
    """Storage files in the order of recording."""
    if path.is_file():
        return [path]
    listed = content.get("relative_file_paths")
    named = [path / Path(str(name)).name for name in listed] if isinstance(listed, list) else []
    found = named or sorted((f for f in path.iterdir() if f.is_file()), key=lambda file: (len(file.name), file.name))
    return [file for file in found if file.suffix in _SALVAGE and file.is_file()]


def _metadata(path: Path) -> dict[str, Any]:
    """What metadata.yaml says; empty where it is missing or damaged."""
    try:
        content = yaml.safe_load((path / "metadata.yaml").read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError):
        return {}
    return content if isinstance(content, dict) else {}
