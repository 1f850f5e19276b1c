"""Where the map builder takes the camera's pose from: TF, or a topic with the robot's pose."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from nre_ros.config import BuilderNodeConfig
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError
from nre_ros.ros.conversions import pose_from_message, stamp_to_ns, transform_stamped
from nre_ros.ros.frames import CameraMount
from nre_ros.ros.tf_stand_in import Buffer, TransformListener
from nre_ros.ros.transforms import lookup_pose

REMEMBERED = Duration(seconds=120)
"""Longer than tf2's ten seconds: frames wait while the network works on the ones before."""

JUMP_BACK = Duration(seconds=1)
"""Stamps of one source that go back further than this begin a new time, as when a bag is played in a loop."""

_TOPICS: dict[str, tuple[type, str]] = {
    "odometry": (Odometry, "odom"),
    "pose": (PoseStamped, "pose"),
    "pose_with_covariance": (PoseWithCovarianceStamped, "pose_with_covariance"),
}


class PoseInput:
    """Poses by stamp, interpolated, never extrapolated and never over a gap of ``max_pose_gap``.

    A topic's poses are of ``base_frame_id``, in the frame that the map will have.
    """

    def __init__(self, node: Node, config: BuilderNodeConfig) -> None:
        self._node = node
        self._config = config
        self._transforms = self._buffer()
        self._mount = CameraMount(self._transforms, config.base_frame_id, config.camera_extrinsics, config.tf_timeout)
        self._listener = TransformListener(self._transforms, node)
        self._poses = self._transforms
        self._newest_ns: int | None = None
        self._cleared = 0
        self._subscription = None
        if config.pose_source in _TOPICS:
            message_type, topic = _TOPICS[config.pose_source]
            self._poses = self._buffer()
            qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._subscription = node.create_subscription(message_type, topic, self._take, qos)

    def _buffer(self) -> Buffer:
        gap = Duration(nanoseconds=round(self._config.max_pose_gap * 1e9))
        return Buffer(REMEMBERED, max_gap=gap, jump_back=JUMP_BACK)

    def jump_back_s(self, image_stamp_ns: int) -> float:
        """How far the images' stamps jumped back with this image, 0 when they did not.

        After a jump all poses from before are forgotten, unless a jump of the poses themselves has done that; fixed
        transforms stay.
        """
        before_ns, cleared_before = self._newest_ns, self._cleared
        cleared = self._cleared = self._poses.times_cleared
        if before_ns is None or image_stamp_ns >= before_ns - JUMP_BACK.nanoseconds:
            self._newest_ns = max(image_stamp_ns, before_ns or image_stamp_ns)
            return 0.0
        self._newest_ns = image_stamp_ns
        if cleared == cleared_before:
            self._transforms.clear()
            self._poses.clear()
            self._cleared = self._poses.times_cleared
        return (before_ns - image_stamp_ns) * 1e-9

    def close(self) -> None:
        self._listener.unregister()
        if self._subscription:
            self._node.destroy_subscription(self._subscription)

    @property
    def source(self) -> str:
        """For messages: the topic, or TF with the frames looked up."""
        if self._subscription:
            return self._subscription.topic_name
        return f"/tf ({self._config.global_frame_id} <- {self._config.base_frame_id})"

    def map_from_camera(self, image_frame_id: str, stamp_ns: int) -> Pose:
        """At an image's stamp. Waits for poses to come: not for a callback. Raises TransformError."""
        config = self._config
        map_from_base = lookup_pose(
            self._poses, config.global_frame_id, config.base_frame_id, stamp_ns, config.tf_timeout
        )
        return map_from_base @ self._mount.base_from_camera(config.camera_frame_id or image_frame_id, stamp_ns)

    def _take(self, message: Any) -> None:
        pose = message.pose if isinstance(message, PoseStamped) else message.pose.pose
        parent, child = self._config.global_frame_id, self._config.base_frame_id
        try:
            stamp_ns = stamp_to_ns(message.header.stamp)
            self._poses.set_transform(transform_stamped(parent, child, pose_from_message(pose), stamp_ns), self.source)
        except TransformError as error:
            self._node.get_logger().error(f"a pose on {self.source} is refused: {error}", throttle_duration_sec=5.0)
