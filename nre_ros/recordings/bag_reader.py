"""Reading a rosbag2, with every failure told as a RecordingError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import Reader

from nre_ros.errors import RecordingError
from nre_ros.recordings.bag_messages import typestore
from nre_ros.recordings.cut_bag import CutBag, is_cut


@dataclass(frozen=True)
class Topic:
    """A topic of a bag that holds at least one message."""

    name: str
    kind: str
    count: int


class BagReader:
    """A rosbag2 folder or a single mcap or db3 file. Each call of :meth:`messages` reads it afresh, as a stream.

    A bag that was cut off or not closed is read as far as it goes, in the order of writing, and ``problems`` tells what
    is lost. Raises RecordingError for a bag that is empty, or of which nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._cut: CutBag | None = None
        self.custom_data: dict[str, str] = {}
        try:
            with self._told():
                self._open()
        except RecordingError:
            self._salvage()
            if self._cut is None:
                raise
        if not self.topics:
            raise RecordingError(f"bag {path} holds no messages; was anything published while it was recorded?")

    def messages(self, *topics: str) -> Iterator[tuple[str, bytes]]:
        """Topic and serialized message, in the order of arrival; raises RecordingError where the bag is damaged."""
        for topic, _, raw in self.logged(*topics):
            yield topic, raw

    def logged(self, *topics: str) -> Iterator[tuple[str, int, bytes]]:
        """As :meth:`messages`, with the time (ns) at which each was recorded between the two."""
        if self._cut is not None:
            yield from self._cut.messages(*topics)
            return
        with self._told(), Reader(self.path) as reader:
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            if wanted:
                for connection, log_ns, raw in reader.messages(wanted):
                    yield connection.topic, log_ns, raw

    def decode(self, topic: str, raw: bytes) -> Any:
        """The message; raises RecordingError when its bytes are no message of the topic's type."""
        try:
            return typestore().deserialize_cdr(raw, self.topics[topic].kind)
        except Exception as error:  # damaged bytes make rosbags fail in many ways
            raise RecordingError(f"a message of {topic} is damaged ({type(error).__name__}: {error})") from error

    def first(self, topic: str) -> Any:
        """The first message of a topic."""
        for _, raw in self.messages(topic):
            return self.decode(topic, raw)
        raise RecordingError(f"bag {self.path} announces messages of {topic} but holds none; it is damaged")

    def _open(self) -> None:
        if self.path.is_dir() and not (self.path / "metadata.yaml").exists():
            raise RecordingError(
                f"bag {self.path} has no metadata.yaml, so its recording was not closed; run: ros2 bag reindex "
                f"{self.path}"
            )
        if is_cut(self.path):
            raise RecordingError(f"bag {self.path} cannot be read (cut off); run: ros2 bag reindex {self.path}")
        with Reader(self.path) as reader:
            self.topics = {
                name: Topic(name, info.msgtype, info.msgcount)
                for name, info in reader.topics.items()
                if info.msgtype is not None and info.msgcount > 0
            }
            custom = reader.storage.metadata.custom
            self.custom_data = dict(custom) if isinstance(custom, dict) else {}

    def _salvage(self) -> None:
        """Take what can be read of a bag that cannot be opened."""
        with self._told():
            cut = CutBag(self.path)
        if cut.counts:
            self._cut, self.custom_data = cut, cut.custom_data
            self.topics = {name: Topic(name, kind, count) for name, (kind, count) in cut.counts.items()}
            self.problems.append(cut.sentence)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RecordingError:
            raise
        except Exception as error:  # a damaged file makes rosbags fail in many ways: struct, zstd, apsw, yaml
            raise RecordingError(
                f"bag {self.path} cannot be read ({' '.join(str(error).split()) or type(error).__name__}); if it was "
                f"cut off, mend it with: ros2 bag reindex {self.path}, or: mcap recover"
            ) from error
