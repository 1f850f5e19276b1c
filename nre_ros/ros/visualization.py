"""Maps as RViz shows them."""

from __future__ import annotations

from geometry_msgs.msg import Point
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from nre_ros.geometry import Pose
from nre_ros.mapping import Map
from nre_ros.ros.conversions import header, point_cloud

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable; who comes later still gets the last message."""

FRUSTUM_SHARE = 0.02
"""Depth of a drawn camera as a share of the extent of the cameras."""


def map_points(map_: Map, frame_id: str, stamp_ns: int) -> PointCloud2:
    """The landmarks."""
    return point_cloud(map_.xyz_map, frame_id, stamp_ns)


def keyframe_markers(map_from_keyframe: Pose, frame_id: str, stamp_ns: int) -> MarkerArray:
    """A batch of cameras (K) as little pyramids, all in one line list."""
    marker = Marker(header=header(frame_id, stamp_ns), ns="keyframes", type=Marker.LINE_LIST, action=Marker.ADD)
    centres = map_from_keyframe.translation
    depth = FRUSTUM_SHARE * max(float((centres.amax(0) - centres.amin(0)).norm()), 1.0)
    corners_cam = [(x * 0.6 * depth, y * 0.45 * depth, depth) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    outline = centres.new_tensor([(0.0, 0.0, 0.0), *corners_cam])
    for apex, *corners in map_from_keyframe.transform(outline).tolist():
        for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
            marker.points += [_point(apex), _point(corner), _point(corner), _point(following)]
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.05 * depth
    marker.color.g = marker.color.a = 1.0
    return MarkerArray(markers=[marker])


def _point(xyz: list[float]) -> Point:
    return Point(x=xyz[0], y=xyz[1], z=xyz[2])
