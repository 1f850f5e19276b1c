"""What RViz sees while a map grows: keyframes and points as they come, then the map that was saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import torch
from rclpy.timer import Timer
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from nre_ros.geometry import Pose
from nre_ros.mapping import Map
from nre_ros.ros.conversions import point_cloud
from nre_ros.ros.managed_node import ManagedNode
from nre_ros.ros.visualization import LATCHED, keyframe_markers

PERIOD_S = 1.0
"""Between two messages; longer with many keyframes, by :data:`PERIOD_PER_KEYFRAME_S`: all are sent each time."""
PERIOD_PER_KEYFRAME_S = 0.002
MOST_PREVIEWS = 2000
"""Keyframes, the newest, whose preview points are shown."""


class LiveDisplay:
    """Publishes ``~/keyframes`` and ``~/map_points``, both latched.

    Points are the landmarks of the last saved map and, of keyframes since, a preview: measured depth, else what the
    newest two keyframes give by triangulation.
    """

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._points = node.create_publisher(PointCloud2, "~/map_points", LATCHED)
        self._keyframes = node.create_publisher(MarkerArray, "~/keyframes", LATCHED)
        self._timer: Timer | None = None
        self._frame_id = ""
        self._poses: list[Pose] = []
        self._saved_xyz = np.zeros((0, 3), np.float32)
        self._previews: deque[np.ndarray] = deque(maxlen=MOST_PREVIEWS)

    def restart(self, frame_id: str, map_from_keyframe: Iterable[Pose]) -> None:
        """Forget what was shown; begin with these keyframes."""
        self._frame_id = frame_id
        self._poses = list(map_from_keyframe)
        self._saved_xyz = self._saved_xyz[:0]
        self._previews.clear()
        if self._poses:
            self._publish_soon()

    def add(self, map_from_cam: Pose, preview_xyz: np.ndarray) -> None:
        self._poses.append(map_from_cam)
        self._previews.append(preview_xyz)
        self._publish_soon()

    def show_map(self, map_: Map) -> None:
        """At once: its keyframes and landmarks instead of the previews."""
        poses = map_.map_from_keyframe.to(torch.float64)
        self._poses = [poses[i] for i in range(map_.keyframe_count)]
        self._saved_xyz = map_.xyz_map
        self._previews.clear()
        self._publish()

    def _publish_soon(self) -> None:
        if self._timer is None:
            period_s = max(PERIOD_S, PERIOD_PER_KEYFRAME_S * len(self._poses))
            self._timer = self._node.after(period_s, self._publish)

    def _publish(self) -> None:
        self._timer = None
        now_ns = self._node.get_clock().now().nanoseconds
        xyz = np.concatenate([self._saved_xyz, *self._previews])
        self._points.publish(point_cloud(xyz, self._frame_id, now_ns))
        if self._poses:
            stacked = Pose(
                torch.stack([pose.rotation for pose in self._poses]),
                torch.stack([pose.translation for pose in self._poses]),
            )
            self._keyframes.publish(keyframe_markers(stacked, self._frame_id, now_ns))
