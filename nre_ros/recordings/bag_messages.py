"""ROS messages of a bag, made from our types with the message definitions of rosbags' Jazzy type store."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from nre_ros.errors import RecordingError
from nre_ros.geometry import Camera
from nre_ros.geometry.pose_track import Rigid
from nre_ros.recordings.camera_info import info_fields
from nre_ros.recordings.images import encode_depth

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"
ODOMETRY = "nav_msgs/msg/Odometry"
POSE = "geometry_msgs/msg/PoseStamped"
POSE_WITH_COVARIANCE = "geometry_msgs/msg/PoseWithCovarianceStamped"
PATH = "nav_msgs/msg/Path"

MAX_STAMP_NS = 2**31 * 10**9
"""builtin_interfaces/Time counts seconds in 32 bits."""


@functools.cache
def typestore() -> Any:
    """The standard messages; those read and written here have not changed between ROS 2 distributions."""
    return get_typestore(Stores.ROS2_JAZZY)


def message(name: str, **fields: Any) -> Any:
    return typestore().types[name](**fields)


def serialized(msg: Any) -> memoryview | bytes:
    return typestore().serialize_cdr(msg, msg.__msgtype__)


def stamp_ns_of(header: Any) -> int:
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def header(stamp_ns: int, frame_id: str) -> Any:
    """Raises RecordingError for times that ROS cannot express."""
    if not 0 <= stamp_ns < MAX_STAMP_NS:
        raise RecordingError(f"time {stamp_ns} ns cannot stand in a ROS message, expected 0 to {MAX_STAMP_NS - 1} ns")
    sec, nanosec = divmod(stamp_ns, 10**9)
    stamp = message("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def image_message(head: Any, image_rgb: np.ndarray) -> Any:
    """rgb8 from uint8 (H, W, 3)."""
    height, width = image_rgb.shape[:2]
    data = np.ascontiguousarray(image_rgb).reshape(-1)
    return _image(head, "rgb8", height, width, 3 * width, data)


def depth_message(head: Any, encoding: str, depth_m: np.ndarray) -> Any:
    """16UC1 or 32FC1 from metres (H, W)."""
    height, width = depth_m.shape
    data = encode_depth(encoding, depth_m)
    return _image(head, encoding, height, width, len(data) // height, data)


def compressed_message(head: Any, encoded: bytes) -> Any:
    """From a JPEG or PNG file's bytes, which are passed on as they are."""
    codec = "png" if encoded.startswith(b"\x89PNG") else "jpeg"
    data = np.frombuffer(encoded, np.uint8)
    return message(COMPRESSED_IMAGE, header=head, format=f"rgb8; {codec} compressed bgr8", data=data)


def info_message(head: Any, camera: Camera) -> Any:
    fields = info_fields(camera)
    for name in "dkrp":
        fields[name] = np.array(fields[name], np.float64)
    roi = message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(CAMERA_INFO, header=head, **fields, binning_x=0, binning_y=0, roi=roi)


def pose_message(head: Any, rigid: Rigid) -> Any:
    """PoseStamped: header.frame_id from the frame whose pose it is."""
    position, orientation = _point("Point", rigid), _quaternion(rigid)
    return message(
        POSE, header=head, pose=message("geometry_msgs/msg/Pose", position=position, orientation=orientation)
    )


def transform_message(head: Any, child: str, parent_from_child: Rigid) -> Any:
    """TransformStamped; header.frame_id is the parent."""
    translation, rotation = _point("Vector3", parent_from_child), _quaternion(parent_from_child)
    transform = message("geometry_msgs/msg/Transform", translation=translation, rotation=rotation)
    return message("geometry_msgs/msg/TransformStamped", header=head, child_frame_id=child, transform=transform)


def _image(head: Any, encoding: str, height: int, width: int, step: int, data: np.ndarray) -> Any:
    return message(
        IMAGE, header=head, height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=data
    )


def _point(kind: str, rigid: Rigid) -> Any:
    return message(f"geometry_msgs/msg/{kind}", x=rigid[0], y=rigid[1], z=rigid[2])


def _quaternion(rigid: Rigid) -> Any:
    return message("geometry_msgs/msg/Quaternion", x=rigid[3], y=rigid[4], z=rigid[5], w=rigid[6])
