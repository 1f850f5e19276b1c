"""Buffer, listener and broadcaster with tf2_ros's call signatures, for machines where tf2_ros is not installed.

The map builder uses this buffer everywhere: it can refuse to interpolate over gaps and notices stamps that jump back.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from nre_ros.geometry.pose import Pose
from nre_ros.geometry.transform_tree import CACHE_NS, TransformError, TransformReason, TransformTree
from nre_ros.ros.conversions import stamp_to_ns, transform_stamped

NO_WAIT = Duration()


class TransformException(Exception):
    """Base of what a lookup raises."""


class LookupException(TransformException):
    """A frame is unknown."""


class ConnectivityException(TransformException):
    """The frames belong to different trees."""


class ExtrapolationException(TransformException):
    """The time asked for lies outside what was received."""


_EXCEPTIONS = {
    TransformReason.UNKNOWN_FRAME: LookupException,
    TransformReason.NOT_CONNECTED: ConnectivityException,
    TransformReason.EXTRAPOLATION_FUTURE: ExtrapolationException,
    TransformReason.EXTRAPOLATION_PAST: ExtrapolationException,
}


class Buffer:
    """Transforms received so far; safe to use from several threads.

    Beyond tf2's: samples ``max_gap`` or more apart are not interpolated, and a sample that is more than ``jump_back``
    older than the newest of its child begins a new time, for which all that moves is forgotten.
    """

    def __init__(
        self,
        cache_time: Duration | None = None,
        node: Node | None = None,
        *,
        max_gap: Duration | None = None,
        jump_back: Duration | None = None,
    ) -> None:
        cache_ns = cache_time.nanoseconds if cache_time is not None else CACHE_NS
        self._tree = TransformTree(cache_ns, max_gap.nanoseconds if max_gap is not None else None)
        self._jump_back_ns = jump_back.nanoseconds if jump_back is not None else None
        self._newest_ns: dict[str, int] = {}
        self.times_cleared = 0
        self._changed = threading.Condition()
        if node is not None:
            jumped_back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
            self._jump_handle = node.get_clock().create_jump_callback(jumped_back, post_callback=self._on_jump)

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        self._set(transform, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        self._set(transform, static=True)

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration = NO_WAIT
    ) -> TransformStamped:
        """``target_from_source``; time 0 asks for the latest. Waits up to ``timeout`` (never in a callback)."""
        asked_ns = time.nanoseconds or None
        pose, stamp_ns = self._wait(target_frame, source_frame, asked_ns, timeout)
        return transform_stamped(target_frame, source_frame, pose, stamp_ns)

    def clear(self) -> None:
        with self._changed:
            self._tree.clear()
            self._newest_ns.clear()
            self.times_cleared += 1

    def _set(self, message: TransformStamped, *, static: bool) -> None:
        t, q = message.transform.translation, message.transform.rotation
        child, stamp_ns = message.child_frame_id, stamp_to_ns(message.header.stamp)
        with self._changed:
            if not static and self._jump_back_ns is not None:
                if stamp_ns < self._newest_ns.get(child, stamp_ns) - self._jump_back_ns:
                    self.clear()
                self._newest_ns[child] = max(stamp_ns, self._newest_ns.get(child, stamp_ns))
            self._tree.set_transform_xyzw(
                message.header.frame_id, child, (t.x, t.y, t.z), (q.x, q.y, q.z, q.w), stamp_ns, static
            )
            self._changed.notify_all()

    def _wait(self, target: str, source: str, asked_ns: int | None, timeout: Duration) -> tuple[Pose, int]:
        deadline = time.monotonic() + timeout.nanoseconds * 1e-9
        with self._changed:
            while True:
                try:
                    stamp_ns = asked_ns or self._tree.latest_ns(target, source) or 0
                    return self._tree.lookup(target, source, stamp_ns), stamp_ns
                except TransformError as error:
                    hopeless = error.reason is TransformReason.EXTRAPOLATION_PAST
                    if hopeless or not self._changed.wait(deadline - time.monotonic()):
                        raise _EXCEPTIONS.get(error.reason, TransformException)(str(error)) from None

    def _on_jump(self, jump: TimeJump) -> None:
        self.clear()


class TransformListener:
    """Feeds a buffer from /tf and /tf_static; the node's executor does the work."""

    def __init__(self, buffer: Buffer, node: Node, *, spin_thread: bool = False, **_: Any) -> None:
        self._buffer = buffer
        self._node = node
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", lambda m: self._take(m, static=False), 100),
            node.create_subscription(TFMessage, "/tf_static", lambda m: self._take(m, static=True), latched),
        ]

    def unregister(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _take(self, message: TFMessage, *, static: bool) -> None:
        add = self._buffer.set_transform_static if static else self._buffer.set_transform
        for transform in message.transforms:
            try:
                add(transform, "")
            except TransformError as error:
                self._node.get_logger().warning(str(error), throttle_duration_sec=10.0)


class TransformBroadcaster:
    """Sends transforms on /tf."""

    def __init__(self, node: Node, qos: QoSProfile | int = 100) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", qos)

    def sendTransform(self, transform: TransformStamped | list[TransformStamped]) -> None:
        self._publisher.publish(TFMessage(transforms=transform if isinstance(transform, list) else [transform]))
