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
from nre_ros.ros.transforms import Buffer, TransformListener, lookup_pose

REMEMBERED = Duration(seconds=120)
"""Longer than tf2's ten seconds: frames wait while the network works on the ones before."""

_TOPICS: dict[str, tuple[type, str]] = {
    "odometry": (Odometry, "odom"),
    "pose": (PoseStamped, "pose"),
    "pose_with_covariance": (PoseWithCovarianceStamped, "pose_with_covariance"),
}


class PoseInput:
    """Poses by stamp, interpolated. A topic's poses are of ``base_frame_id``, in the frame that the map will have."""

    def __init__(self, node: Node, transforms: Buffer, config: BuilderNodeConfig) -> None:
        self._node = node
        self._config = config
        self._mount = CameraMount(transforms, config.base_frame_id, config.camera_extrinsics, config.tf_timeout)
        self._listener = TransformListener(transforms, node)
        self._poses = transforms
        self._subscription = None
        if config.pose_source in _TOPICS:
            message_type, topic = _TOPICS[config.pose_source]
            self._poses = Buffer(REMEMBERED)
            qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._subscription = node.create_subscription(message_type, topic, self._take, qos)

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
