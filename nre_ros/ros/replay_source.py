"""A bag's messages published as they are stored, byte for byte."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosDurability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock

from nre_ros.errors import RecordingError
from nre_ros.recordings.bag_reader import BagReader
from nre_ros.ros.conversions import stamp_from_ns

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
QUEUE = 100
TF_WAIT_S = 3.0
SETTLE_S = 1.0
"""Then everybody who listens has heard of all topics; a node that was killed seems to listen for a while, too."""


@dataclass(frozen=True)
class Stored:
    """One message of the bag, recorded at ``logged_ns``. ``stamp_ns`` is its header's for images, else None."""

    topic: str
    kind: str
    logged_ns: int
    raw: bytes
    stamp_ns: int | None


class ReplaySource:
    """Publishers for the topics of a bag, under their names after ``remap``; ``topics`` (if any) limits them.

    Reliable, hence matched by best-effort subscriptions too; latched where the bag says so, and /tf_static always.
    Raises RecordingError for a bag that cannot be read, or has none of the topics.
    """

    def __init__(self, node: Node, bag: Path, topics: list[str], remap: dict[str, str]) -> None:
        self._node = node
        self._bag = BagReader(bag)
        chosen = [t for t in self._bag.topics.values() if not topics or t.name in topics]
        if not chosen:
            raise RecordingError(f"bag {bag} has none of the topics {topics}; it has {', '.join(self._bag.topics)}")
        latched = self._latched_topics()
        self._publishers: dict[str, Publisher] = {}
        self._kinds = {topic.name: topic.kind for topic in chosen}
        self.skipped: list[str] = []
        """Topics whose message type is not installed."""
        for topic in chosen:
            message_type = _message_type(topic.kind)
            if message_type is None:
                self.skipped.append(f"{topic.name} ({topic.kind})")
                continue
            qos = QoSProfile(depth=QUEUE, reliability=ReliabilityPolicy.RELIABLE)
            if topic.name in latched:
                qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
            name = remap.get(topic.name, topic.name)
            self._publishers[topic.name] = node.create_publisher(message_type, name, qos)

    def messages(self) -> Iterator[Stored]:
        """In the order in which they were recorded."""
        try:
            with Reader(self._bag.path) as reader:
                wanted = [c for c in reader.connections if c.topic in self._publishers]
                for connection, logged_ns, raw in reader.messages(wanted):
                    kind = self._kinds[connection.topic]
                    stamp_ns = _header_stamp_ns(raw) if kind in IMAGES else None
                    yield Stored(connection.topic, kind, logged_ns, bytes(raw), stamp_ns)
        except (OSError, ValueError, struct.error) as error:
            raise RecordingError(f"bag {self._bag.path} is damaged: {error}") from error

    def publish(self, stored: Stored) -> None:
        self._publishers[stored.topic].publish(stored.raw)

    def wait_for_subscribers(self, timeout_s: float, also: Callable[[], bool] = lambda: True) -> None:
        """Until somebody listens to an image and, if the bag has one, to a camera_info, and ``also`` holds; then until
        somebody else listens to /tf, for a little while, as not everybody does.

        Raises RecordingError naming what nobody listens to.
        """
        deadline = time.monotonic() + timeout_s
        while missing := self._unheard():
            if time.monotonic() > deadline:
                raise RecordingError(
                    f"nobody subscribed to {' or '.join(missing)} within {timeout_s:g} s: "
                    "is the node active, in the same ROS_DOMAIN_ID, and remapped to these topics?"
                )
            time.sleep(0.05)
        while not also() and time.monotonic() < deadline:
            time.sleep(0.05)
        deadline = time.monotonic() + TF_WAIT_S
        while not self._others_hear("/tf") and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(SETTLE_S)

    def _others_hear(self, topic: str) -> bool:
        publisher = self._publishers.get(topic)
        if publisher is None:
            return True
        own = sum(subscription.topic_name == publisher.topic_name for subscription in self._node.subscriptions)
        return publisher.get_subscription_count() > own

    def _unheard(self) -> list[str]:
        for kinds in (IMAGES, (CAMERA_INFO,)):
            publishers = [p for topic, p in self._publishers.items() if self._kinds[topic] in kinds]
            if publishers and not any(p.get_subscription_count() for p in publishers):
                return [p.topic_name for p in publishers]
        return []

    def _latched_topics(self) -> set[str]:
        with Reader(self._bag.path) as reader:
            latched = {"/tf_static"}
            for connection in reader.connections:
                offered = getattr(connection.ext, "offered_qos_profiles", ())
                if any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in offered):
                    latched.add(connection.topic)
        return latched


class Pacer:
    """Sleeps so that messages leave at the pace of their recording; keeps /clock going where asked."""

    TICK_S = 0.02

    def __init__(self, node: Node, rate: float, with_clock: bool) -> None:
        self._rate = rate
        self._clock = node.create_publisher(Clock, "/clock", 10) if with_clock else None
        self._start: tuple[int, float] | None = None

    def wait_until(self, logged_ns: int) -> None:
        if self._start is None:
            self._start = logged_ns, time.monotonic()
        first_ns, started_s = self._start
        due_s = started_s + (logged_ns - first_ns) * 1e-9 / self._rate
        while (left_s := due_s - time.monotonic()) > 0:
            self.tell(logged_ns - int(left_s * self._rate * 1e9))
            time.sleep(min(left_s, self.TICK_S))
        self.tell(logged_ns)

    def tell(self, now_ns: int) -> None:
        if self._clock:
            self._clock.publish(Clock(clock=stamp_from_ns(now_ns)))


def _message_type(kind: str) -> Any | None:
    package, folder, name = kind.split("/")
    try:
        return getattr(import_module(f"{package}.{folder}"), name)
    except (ImportError, AttributeError):
        return None


def _header_stamp_ns(raw: Any) -> int:
    """The stamp of a serialized message whose first field is a header, without reading its pixels."""
    order = "<" if raw[1] == 1 else ">"
    sec, nanosec = struct.unpack_from(f"{order}iI", raw, 4)
    return sec * 10**9 + nanosec
