"""An image among the robot's frames: the camera's mount, odometry at its stamp, the transform that carries a pose."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.time import Time

from nre_ros.config import LocalizerNodeConfig
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError, TransformReason
from nre_ros.geometry.transform_tree import CACHE_NS
from nre_ros.ros import tf_stand_in
from nre_ros.ros.camera_input import Snapshot
from nre_ros.ros.conversions import stamp_to_ns
from nre_ros.ros.frames import CameraMount
from nre_ros.ros.transforms import Buffer, TransformException, lookup_pose


@dataclass(frozen=True)
class FrameLink:
    """``parent_from_child`` for TF, true at the image's stamp."""

    parent: str
    child: str
    parent_from_child: Pose


@dataclass(frozen=True)
class Odometry:
    """``odom_from_cam`` at an image's stamp, or None and the trouble."""

    odom_from_cam: Pose | None
    trouble: TransformError | None = None


class RobotFrames:
    """Lookups wait up to ``tf_timeout``: not for a callback. The configuration's frames and modes stay as they are."""

    def __init__(self, buffer: Buffer, config: LocalizerNodeConfig) -> None:
        self._buffer = buffer
        self._config = config
        self._mode = config.tf_mode if config.tf_broadcast else "none"
        self._mount = CameraMount(buffer, config.base_frame_id, config.camera_extrinsics, config.tf_timeout)

    def forget(self) -> None:
        """All that moves, because time began anew; the static transforms are kept."""
        self._buffer.clear()

    def odometry(self, image: Snapshot) -> Odometry:
        """Waited for where the answer needs it; else taken if it is there."""
        config = self._config
        timeout_s = config.tf_timeout if self._mode == "map_to_odom" else 0.0
        try:
            if image.stamp_ns == 0:  # tf2 takes 0 for "the latest", which would be wrong by the motion since the image
                raise TransformError(
                    TransformReason.INVALID, "the image's header.stamp is 0: stamp images in the driver"
                )
            odom, base = config.odom_frame_id, config.base_frame_id
            odom_from_base = lookup_pose(self._buffer, odom, base, image.stamp_ns, timeout_s)
            return Odometry(odom_from_base @ self.base_from_camera(image))
        except TransformError as error:
            if self._is_far_ahead(image):
                self._buffer.clear()
            return Odometry(None, error)

    def _is_far_ahead(self, image: Snapshot) -> bool:
        """Whether odometry was stamped later than the image by more than the buffer remembers, as by a clock that was
        set: every right sample after it would be taken for too old, until its time has come."""
        try:
            latest = self._buffer.lookup_transform(self._config.odom_frame_id, self._config.base_frame_id, Time())
        except (TransformException, tf_stand_in.TransformException):
            return False
        return stamp_to_ns(latest.header.stamp) - image.stamp_ns > CACHE_NS

    def link(self, image: Snapshot, map_from_cam: Pose, odometry: Odometry) -> FrameLink | None:
        """What ``tf_mode`` asks for; raises TransformError when it cannot be had."""
        config = self._config
        if self._mode == "none":
            return None
        if self._mode == "map_to_camera":
            camera_frame = self._camera_frame(image)
            if not camera_frame:
                raise TransformError(
                    TransformReason.UNKNOWN_FRAME,
                    "the image's header.frame_id is empty: set the parameter camera_frame_id",
                )
            return FrameLink(config.global_frame_id, camera_frame, map_from_cam)
        if self._mode == "map_to_base":
            map_from_base = map_from_cam @ self.base_from_camera(image).inverse()
            return FrameLink(config.global_frame_id, config.base_frame_id, map_from_base)
        if odometry.odom_from_cam is None:
            raise odometry.trouble or TransformError(TransformReason.UNKNOWN_FRAME, "no odometry")
        return FrameLink(config.global_frame_id, config.odom_frame_id, map_from_cam @ odometry.odom_from_cam.inverse())

    def out_from_camera(self, image: Snapshot) -> Pose:
        """From the camera to the frame whose pose is published."""
        return self.base_from_camera(image) if self._config.output_frame == "base" else Pose.identity()

    def base_from_camera(self, image: Snapshot) -> Pose:
        """Raises TransformError naming the frames and the parameters that mend it."""
        return self._mount.base_from_camera(self._camera_frame(image), image.stamp_ns)

    def _camera_frame(self, image: Snapshot) -> str:
        """Raises TransformError for one that no camera has: TF would find it, and the pose be nonsense."""
        frame_id = self._config.camera_frame_id or image.frame_id.lstrip("/")
        if frame_id in (self._config.global_frame_id, self._config.odom_frame_id):
            raise TransformError(
                TransformReason.INVALID,
                f"the image's header.frame_id is {frame_id!r}, expected the camera's optical frame: mend the driver, "
                "or set the parameter camera_frame_id",
            )
        return frame_id
