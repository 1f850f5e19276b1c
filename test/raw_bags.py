"""Bags written message by message, as other software may leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from small_recordings import CAMERA

from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import rigid_from_pose
from nre_ros.recordings import Frame
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_writer import BASE_FROM_CAMERA


class RawBag:
    """A bag written message by message, as other software may leave it."""

    def __init__(self, folder: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> None:
        self.folder = folder
        self._writer = Writer(folder, version=9, storage_plugin=storage)
        self._connections = {}

    def __enter__(self):
        self._writer.open()
        return self

    def __exit__(self, *_):
        self._writer.close()

    def add(self, topic: str, stamp: int, msg) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msg.__msgtype__, typestore=messages.typestore()
            )
        self._writer.write(self._connections[topic], stamp, messages.serialized(msg))

    def add_frames(
        self, frames, topic="/cam/image", info_topic="/cam/camera_info", frame_id="cam", camera=CAMERA
    ) -> None:
        for frame in frames:
            head = messages.header(frame.stamp_ns, frame_id)
            self.add(topic, frame.stamp_ns, messages.image_message(head, frame.image_rgb))
            if info_topic:
                self.add(info_topic, frame.stamp_ns, messages.info_message(head, camera))

    def add_tf(self, topic: str, stamp: int, parent: str, child: str, rigid) -> None:
        transform = messages.transform_message(messages.header(stamp, parent), child, rigid)
        self.add(topic, stamp, messages.message(messages.TF, transforms=[transform]))

    def add_pose(self, topic: str, stamp: int, frame_id: str, pose: Pose, kind=messages.POSE, child="") -> None:
        stamped = messages.pose_message(messages.header(stamp, frame_id), rigid_from_pose(pose))
        if kind == messages.POSE:
            self.add(topic, stamp, stamped)
            return
        with_covariance = messages.message(
            "geometry_msgs/msg/PoseWithCovariance", pose=stamped.pose, covariance=np.zeros(36)
        )
        if kind == messages.POSE_WITH_COVARIANCE:
            self.add(topic, stamp, messages.message(kind, header=stamped.header, pose=with_covariance))
            return
        zero = messages.message("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = messages.message("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        twist = messages.message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36))
        self.add(
            topic,
            stamp,
            messages.message(kind, header=stamped.header, child_frame_id=child, pose=with_covariance, twist=twist),
        )

    def add_path(self, topic: str, stamp: int, frame_id: str, frames: Sequence[Frame]) -> None:
        """A nav_msgs/Path of the base, with the stamps of the frames."""
        poses: list[Any] = []
        for frame in frames:
            assert frame.map_from_cam is not None
            map_from_base = rigid_from_pose(frame.map_from_cam @ BASE_FROM_CAMERA.inverse())
            poses.append(messages.pose_message(messages.header(frame.stamp_ns, ""), map_from_base))
        self.add(topic, stamp, messages.message(messages.PATH, header=messages.header(stamp, frame_id), poses=poses))
