"""What RViz shows of the localizer: the map, the way, what else the answer might be, and what it sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray, PoseStamped
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from nre_ros.geometry import Pose
from nre_ros.mapping import Map
from nre_ros.ros.conversions import header, pose_to_message
from nre_ros.ros.debug_image import rgb_message
from nre_ros.ros.qos_watch import QosWatch
from nre_ros.ros.visualization import LATCHED, keyframe_markers, map_points

PATH_POSES = 2000
"""Longer ways are shown by their end."""
PATH_PERIOD_NS = 10**9
"""The way is sent no more often: all of it every time."""


class Display:
    """Publishers of the localizer that no other node depends on. Paths and debug images are made only for somebody."""

    def __init__(self, node: LifecycleNode, watch: QosWatch) -> None:
        self._node = node

        def create(kind: type, topic: str, qos: QoSProfile | int) -> Any:
            return node.create_publisher(kind, topic, qos, event_callbacks=watch.publisher(topic))

        self._map_points = create(PointCloud2, "~/map_points", LATCHED)
        self._keyframes = create(MarkerArray, "~/keyframes", LATCHED)
        self._path = create(Path, "~/path", 1)
        self._hypotheses = create(PoseArray, "~/hypotheses", 10)
        self._debug_image = create(Image, "~/debug_image", 1)
        self._way: deque[PoseStamped] = deque(maxlen=PATH_POSES)
        self._path_sent_ns = 0
        self._ambiguous = False

    @property
    def wants_image(self) -> bool:
        """Whether somebody looks at the debug image."""
        return bool(self._debug_image.get_subscription_count() > 0)

    def show_map(self, map_: Map, frame_id: str) -> None:
        """Also begins the way anew."""
        now_ns = self._node.get_clock().now().nanoseconds
        self._map_points.publish(map_points(map_, frame_id, now_ns))
        self._keyframes.publish(keyframe_markers(map_.map_from_keyframe, frame_id, now_ns))
        self._way.clear()

    def show_pose(self, pose: PoseStamped, stamp_ns: int) -> None:
        """One more step of the way; a stamp that goes back begins it anew."""
        before = self._way[-1].header.stamp if self._way else pose.header.stamp
        if (pose.header.stamp.sec, pose.header.stamp.nanosec) < (before.sec, before.nanosec):
            self._way.clear()
            self._path_sent_ns = 0
        self._way.append(pose)
        if abs(stamp_ns - self._path_sent_ns) >= PATH_PERIOD_NS and self._path.get_subscription_count() > 0:
            self._path.publish(Path(header=pose.header, poses=list(self._way)))
            self._path_sent_ns = stamp_ns

    def show_hypotheses(self, poses: Sequence[Pose], frame_id: str, stamp_ns: int) -> None:
        """Ranked; none takes back those that were shown."""
        if poses or self._ambiguous:
            messages = [pose_to_message(pose) for pose in poses]
            self._hypotheses.publish(PoseArray(header=header(frame_id, stamp_ns), poses=messages))
        self._ambiguous = bool(poses)

    def show_image(self, image_rgb: np.ndarray, frame_id: str, stamp_ns: int) -> None:
        self._debug_image.publish(rgb_message(image_rgb, frame_id, stamp_ns))
