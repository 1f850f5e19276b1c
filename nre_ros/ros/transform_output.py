"""The answer on /tf."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode

from nre_ros.config import LocalizerNodeConfig
from nre_ros.ros.conversions import transform_stamped
from nre_ros.ros.robot_frames import FrameLink
from nre_ros.ros.transforms import TransformBroadcaster


class TransformOutput:
    """Publishes each fix's transform; map -> odom is repeated on a timer, since it stays true between fixes.

    The repeated one is dated ``transform_tolerance`` ahead, so that whoever looks up the present finds it, and
    stops when its fix is older than ``lost_timeout``: then the timer rests, too. A transform to the base or the camera
    is true at the image's stamp alone and is published once, with it.
    """

    def __init__(self, node: LifecycleNode, config: Callable[[], LocalizerNodeConfig]) -> None:
        self._node = node
        self._config = config
        self._broadcaster = TransformBroadcaster(node)
        self._standing: FrameLink | None = None
        self._standing_since = node.get_clock().now()
        self._timer = node.create_timer(1.0 / config().tf_rate, self._repeat)
        self._timer.cancel()

    def close(self) -> None:
        self._node.destroy_timer(self._timer)

    def publish(self, link: FrameLink, stamp_ns: int) -> None:
        """``link`` is true at ``stamp_ns``."""
        if self._config().tf_mode == "map_to_odom":
            self._standing, self._standing_since = link, self._node.get_clock().now()
            self._repeat()
            self._timer.reset()
        else:
            self._send(link, stamp_ns)

    def _repeat(self) -> None:
        if self._standing is None:
            self._timer.cancel()
            return
        now, config = self._node.get_clock().now(), self._config()
        age = now - self._standing_since
        if not Duration() <= age <= Duration(nanoseconds=round(config.lost_timeout * 1e9)):
            self._standing = None  # lost, or the clock jumped back: a replay began anew
            return
        ahead = Duration(nanoseconds=round(config.transform_tolerance * 1e9))
        self._send(self._standing, (now + ahead).nanoseconds)

    def _send(self, link: FrameLink, stamp_ns: int) -> None:
        self._broadcaster.sendTransform(transform_stamped(link.parent, link.child, link.parent_from_child, stamp_ns))
