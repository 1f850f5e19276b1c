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


@dataclass(frozen=True)
class Topic:
    """A topic of a bag that holds at least one message."""

    name: str
    kind: str
    count: int


class BagReader:
    """A rosbag2 folder or a single mcap or db3 file. Each call of :meth:`messages` reads it afresh, as a stream.

    Raises RecordingError for a bag that is damaged, cut off or empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir() and not (path / "metadata.yaml").exists():
            raise RecordingError(
                f"bag {path} has no metadata.yaml, so its recording was not closed; run: ros2 bag reindex {path}"
            )
        with self._told(), Reader(path) as reader:
            self.topics = {
                name: Topic(name, info.msgtype, info.msgcount)
                for name, info in reader.topics.items()
                if info.msgtype is not None and info.msgcount > 0
            }
            custom = reader.storage.metadata.custom
            self.custom_data: dict[str, str] = dict(custom) if isinstance(custom, dict) else {}
        if not self.topics:
            raise RecordingError(f"bag {path} holds no messages; was anything published while it was recorded?")

    def messages(self, *topics: str) -> Iterator[tuple[str, bytes]]:
        """Topic and serialized message, in the order of arrival; raises RecordingError where the bag is damaged."""
        with self._told(), Reader(self.path) as reader:
            wanted = [connection for connection in reader.connections if connection.topic in topics]
            if wanted:
                for connection, _, raw in reader.messages(wanted):
                    yield connection.topic, raw

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
