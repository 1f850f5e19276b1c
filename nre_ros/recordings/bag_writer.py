"""Frames as a rosbag2 that any ROS 2 tool reads, with the answer in it or without."""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from nre_ros.errors import RecordingError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import rigid_from_pose
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.camera_info import check_size
from nre_ros.recordings.compressed import encode_png
from nre_ros.recordings.frame import Frame
from nre_ros.recordings.tables import write_roles

MAP_FRAME, ODOM_FRAME, BASE_FRAME, CAMERA_FRAME = "map", "odom", "base_link", "camera_optical_frame"
IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
INFO_TOPIC = "/camera/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"
TRUTH_TOPIC = "/ground_truth/pose"
UNIT_KEY = "nre_ros_unit"
"""Key in the bag's custom_data that names the unit of its poses."""

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
POSE_MODES = ("map_tf", "odom_tf", "none")

BASE_FROM_CAMERA = Pose.from_quat_xyzw(
    torch.zeros(3, dtype=torch.float64), torch.tensor([-0.5, 0.5, -0.5, 0.5], dtype=torch.float64)
)
"""A camera at the origin of the base that looks along its x axis."""

_LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    QosTime(0, 0), QosTime(0, 0), QosLiveliness.SYSTEM_DEFAULT, QosTime(0, 0), False,
)  # fmt: skip


def drifting_odometry(seconds: float) -> Pose:
    """A made-up ``map_from_odom`` after so many seconds: somewhere else, then 1 cm and 0.05 degrees a second away."""
    yaw = math.radians(40 + 0.05 * seconds)
    translation = torch.tensor([3.0 + 0.01 * seconds, -2.0, 0.0], dtype=torch.float64)
    quat_xyzw = torch.tensor([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)], dtype=torch.float64)
    return Pose.from_quat_xyzw(translation, quat_xyzw)


class BagWriter:
    """Context manager that writes a rosbag2 folder; it appears under its name at a clean exit, or not at all.

    Every frame becomes an image (rgb8, or compressed), its camera_info, depth if it has one, and, if it has a pose:
    ``/ground_truth/pose`` (PoseStamped, map_from_base) in any case, and on ``/tf`` by ``pose_mode``

    - "map_tf": map -> base_link; map -> odom -> base_link when ``map_from_odom`` is given;
    - "odom_tf": odom -> base_link alone, so that the bag holds odometry but not the answer;
    - "none": nothing.

    ``/tf_static`` holds base_link -> camera_optical_frame (``base_from_camera``). ``map_from_odom`` gives a pose by
    stamp_ns; by default "odom_tf" uses :func:`drifting_odometry`. ``depth_encoding`` is 32FC1 (exact) or 16UC1
    (millimetres).

    Raises RecordingError for bad options, and when the folder exists and is not to be, or is no bag to be, overwritten.
    """

    def __init__(
        self,
        folder: str | Path,
        storage: str = "mcap",
        *,
        pose_mode: str = "map_tf",
        base_from_camera: Pose = BASE_FROM_CAMERA,
        map_from_odom: Callable[[int], Pose] | None = None,
        unit: str = "metre",
        depth_encoding: str = "32FC1",
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        _check_choice("storage", storage, STORAGES)
        _check_choice("pose_mode", pose_mode, POSE_MODES)
        _check_choice("depth_encoding", depth_encoding, ("32FC1", "16UC1"))
        self._storage, self._pose_mode, self._unit = STORAGES[storage], pose_mode, unit
        self._base_from_camera, self._map_from_odom = base_from_camera, map_from_odom
        self._depth_encoding = depth_encoding
        self._overwrite = overwrite
        self._connections: dict[str, Connection] = {}
        self._roles: dict[int, str] = {}
        self._start_ns: int | None = None

    def __enter__(self) -> BagWriter:
        self._check_target()
        with self._told():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._workplace = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
            try:
                self._writer = Writer(
                    self._workplace / self.folder.name, version=Writer.VERSION_LATEST, storage_plugin=self._storage
                )
                self._writer.set_custom_data(UNIT_KEY, self._unit)
                self._writer.open()
            except BaseException:
                shutil.rmtree(self._workplace, ignore_errors=True)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._writer.abort()
                return
            if self._start_ns is None:
                self._writer.abort()
                raise RecordingError(f"no frame was written, so {self.folder} is not made")
            with self._told():
                self._writer.close()
                if self._roles:
                    write_roles(self._writer.path, self._roles)
                self._put_in_place()
        finally:
            shutil.rmtree(self._workplace, ignore_errors=True)

    def write_frame(
        self, frame: Frame, *, compressed: bool = False, encoded: bytes | None = None, role: str | None = None
    ) -> None:
        """Add a frame. ``compressed`` writes PNG, or ``encoded``, the JPEG or PNG file the image came from, as it is.

        ``role`` ("map", "query") goes to the bag's ``split.txt``. Raises CalibrationError when image and camera differ
        in size, RecordingError for times ROS cannot express, TransformError for poses that are none.
        """
        stamp_ns = frame.stamp_ns
        check_size(frame.camera, frame.image_rgb)
        optical = messages.header(stamp_ns, CAMERA_FRAME)
        if self._start_ns is None:
            self._start_ns = stamp_ns
            self._write_tf("/tf_static", stamp_ns, [(BASE_FRAME, CAMERA_FRAME, self._base_from_camera)], _LATCHED)
        if frame.map_from_cam is not None:
            self._write_pose(stamp_ns, frame.map_from_cam @ self._base_from_camera.inverse())
        self._write(INFO_TOPIC, stamp_ns, messages.info_message(optical, frame.camera))
        if frame.depth_m is not None:
            depth = messages.depth_message(optical, self._depth_encoding, frame.depth_m)
            self._write(DEPTH_TOPIC, stamp_ns, depth)
        if compressed:
            image_file = encoded if encoded is not None else encode_png(frame.image_rgb)
            self._write(COMPRESSED_TOPIC, stamp_ns, messages.compressed_message(optical, image_file))
        else:
            self._write(IMAGE_TOPIC, stamp_ns, messages.image_message(optical, frame.image_rgb))
        if role is not None:
            self._roles[stamp_ns] = role

    def _write_pose(self, stamp_ns: int, map_from_base: Pose) -> None:
        truth = messages.pose_message(messages.header(stamp_ns, MAP_FRAME), rigid_from_pose(map_from_base))
        self._write(TRUTH_TOPIC, stamp_ns, truth)
        if self._pose_mode == "none":
            return
        if self._pose_mode == "map_tf" and self._map_from_odom is None:
            self._write_tf("/tf", stamp_ns, [(MAP_FRAME, BASE_FRAME, map_from_base)])
            return
        map_from_odom = self._odometry_at(stamp_ns)
        edges = [(ODOM_FRAME, BASE_FRAME, map_from_odom.inverse() @ map_from_base)]
        if self._pose_mode == "map_tf":
            edges.append((MAP_FRAME, ODOM_FRAME, map_from_odom))
        self._write_tf("/tf", stamp_ns, edges)

    def _odometry_at(self, stamp_ns: int) -> Pose:
        if self._map_from_odom is not None:
            return self._map_from_odom(stamp_ns)
        assert self._start_ns is not None
        return drifting_odometry((stamp_ns - self._start_ns) * 1e-9)

    def _write_tf(self, topic: str, stamp_ns: int, edges: list[tuple[str, str, Pose]], *qos: Qos) -> None:
        transforms = [
            messages.transform_message(messages.header(stamp_ns, parent), child, rigid_from_pose(parent_from_child))
            for parent, child, parent_from_child in edges
        ]
        self._write(topic, stamp_ns, messages.message(messages.TF, transforms=transforms), *qos)

    def _write(self, topic: str, stamp_ns: int, msg: Any, *qos: Qos) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msg.__msgtype__, typestore=messages.typestore(), offered_qos_profiles=qos
            )
        with self._told():
            self._writer.write(self._connections[topic], stamp_ns, messages.serialized(msg))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise RecordingError(f"bag {self.folder} cannot be written: {error}") from error

    def _check_target(self) -> None:
        if not self.folder.exists():
            return
        if not self._overwrite:
            raise RecordingError(f"{self.folder} exists already; give another name or ask to overwrite it")
        if not (self.folder / "metadata.yaml").exists():
            raise RecordingError(f"{self.folder} is no rosbag2 (it lacks metadata.yaml), so it is not overwritten")

    def _put_in_place(self) -> None:
        replaced = self._workplace / "replaced"
        if self.folder.exists():
            self._check_target()
            self.folder.rename(replaced)
        try:
            self._writer.path.rename(self.folder)
        except OSError:
            if replaced.exists():
                replaced.rename(self.folder)
            raise


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise RecordingError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
