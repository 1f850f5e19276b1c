"""Between ROS messages and the types of this package."""

from __future__ import annotations

import array
from collections.abc import Sequence

import numpy as np
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, TransformStamped
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from nre_ros.geometry import Pose
from nre_ros.geometry.pose import adjoint
from nre_ros.geometry.pose_track import pose_from_rigid, rigid_from_pose, rigid_from_xyzw
from nre_ros.recordings.compressed import decode_compressed
from nre_ros.recordings.images import ENCODINGS, decode_depth, decode_image
from nre_ros.ros.other_encodings import decode_by_cv_bridge


def stamp_to_ns(stamp: Time) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def stamp_from_ns(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def header(frame_id: str, stamp_ns: int) -> Header:
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def image_rgb_from_message(message: Image | CompressedImage) -> np.ndarray:
    """uint8 RGB (H, W, 3); raises RecordingError for what cannot be decoded."""
    if isinstance(message, CompressedImage):
        return decode_compressed(message.format, message.data)
    m = message
    if m.encoding.lower() not in ENCODINGS:
        return decode_by_cv_bridge(m)
    return decode_image(m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data)


def depth_from_message(message: Image) -> np.ndarray:
    """float32 metres (H, W), NaN where unknown; raises RecordingError for what cannot be decoded."""
    m = message
    return decode_depth(m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data)


def pose_from_message(message: PoseMessage) -> Pose:
    """Float64; raises TransformError for NaN and quaternions far from unit length."""
    p, q = message.position, message.orientation
    return pose_from_rigid(rigid_from_xyzw((p.x, p.y, p.z), (q.x, q.y, q.z, q.w)))


def pose_to_message(pose: Pose) -> PoseMessage:
    """Raises TransformError for a pose that is not finite."""
    message = PoseMessage()
    p, q = message.position, message.orientation
    p.x, p.y, p.z, q.x, q.y, q.z, q.w = rigid_from_pose(pose)
    return message


def pose_stamped(pose: Pose, frame_id: str, stamp_ns: int) -> PoseStamped:
    return PoseStamped(header=header(frame_id, stamp_ns), pose=pose_to_message(pose))


def pose_with_covariance(
    pose: Pose, covariance: Sequence[float], frame_id: str, stamp_ns: int
) -> PoseWithCovarianceStamped:
    """``covariance`` as :func:`ros_covariance` gives it."""
    message = PoseWithCovarianceStamped(header=header(frame_id, stamp_ns))
    message.pose.pose = pose_to_message(pose)
    message.pose.covariance = list(covariance)
    return message


def transform_stamped(parent: str, child: str, parent_from_child: Pose, stamp_ns: int) -> TransformStamped:
    """Raises TransformError for a transform that is not finite."""
    message = TransformStamped(header=header(parent, stamp_ns), child_frame_id=child)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z, q.x, q.y, q.z, q.w = rigid_from_pose(parent_from_child)
    return message


def pose_from_transform(message: TransformStamped) -> Pose:
    """``parent_from_child``, float64; raises TransformError for NaN and quaternions far from unit length."""
    t, q = message.transform.translation, message.transform.rotation
    return pose_from_rigid(rigid_from_xyzw((t.x, t.y, t.z), (q.x, q.y, q.z, q.w)))


def ros_covariance(covariance: torch.Tensor, map_from_out: Pose, out_from_cam: Pose) -> list[float]:
    """The localizer's covariance as ROS wants it for the pose of another frame on the same rigid body.

    From the (6, 6) of the twist x, rotation first, in ``map_from_cam @ exp(x)`` to the 36 numbers, row by row, of
    x, y, z and the rotation about the fixed x, y, z axes of the map, for ``map_from_out``. To first order.
    """
    # map_from_cam exp(x) cam_from_out = map_from_out exp(Ad x): a twist in the out frame, turned into the map's axes.
    out_from_twist = adjoint(out_from_cam.to(covariance.dtype))
    rotation = map_from_out.rotation.to(covariance.dtype)
    zero = torch.zeros_like(rotation)
    swap_and_turn = torch.cat([torch.cat([zero, rotation], -1), torch.cat([rotation, zero], -1)], -2)
    jacobian = swap_and_turn @ out_from_twist
    result = jacobian @ covariance @ jacobian.mT
    return ((result + result.mT) / 2).flatten().tolist()


def point_cloud(xyz: np.ndarray, frame_id: str, stamp_ns: int) -> PointCloud2:
    """Points (N, 3) as an unordered cloud of float32 x, y, z."""
    points = np.ascontiguousarray(xyz, "<f4")
    cloud = PointCloud2(header=header(frame_id, stamp_ns), height=1, width=len(points), point_step=12)
    cloud.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")
    ]
    cloud.row_step = 12 * len(points)
    cloud.is_dense = bool(np.isfinite(points).all())
    # array.array is taken over as it is; bytes would be checked one by one
    cloud.data = array.array("B", points.tobytes())
    return cloud
