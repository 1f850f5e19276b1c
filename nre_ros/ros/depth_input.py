"""The optional depth images of the map builder."""

from __future__ import annotations

import threading
from collections import OrderedDict

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from nre_ros.ros.conversions import stamp_to_ns

TOLERANCE_NS = 10_000_000
"""Colour and depth of one shot may be stamped a few milliseconds apart."""


class DepthInput:
    """Finds the depth image that belongs to a colour image."""

    def __init__(self, node: Node, depth: int) -> None:
        self._node = node
        self._size = 4 * depth
        self._by_stamp: OrderedDict[int, Image] = OrderedDict()
        self._changed = threading.Condition()
        self._seen = False
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscription = node.create_subscription(Image, "depth", self._take, qos)

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def forget(self) -> None:
        """All depth images so far: they belong to another time."""
        with self._changed:
            self._by_stamp.clear()

    def of(self, stamp_ns: int, timeout_s: float) -> Image | None:
        """The depth image of that stamp; waits for it only where depth has come before. Not for a callback."""
        with self._changed:
            if not self._seen:
                return None
            self._changed.wait_for(lambda: self._nearest(stamp_ns) is not None, timeout_s)
            return self._nearest(stamp_ns)

    def _nearest(self, stamp_ns: int) -> Image | None:
        best = min(self._by_stamp, key=lambda stamp: abs(stamp - stamp_ns), default=None)
        return None if best is None or abs(best - stamp_ns) > TOLERANCE_NS else self._by_stamp[best]

    def _take(self, message: Image) -> None:
        with self._changed:
            self._seen = True
            self._by_stamp[stamp_to_ns(message.header.stamp)] = message
            if len(self._by_stamp) > self._size:
                self._by_stamp.popitem(last=False)
            self._changed.notify_all()
