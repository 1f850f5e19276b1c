"""One image through the localizer to what the node publishes; runs in the worker thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from nre_ros.config import LocalizerConfig, LocalizerNodeConfig
from nre_ros.errors import NreError
from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose_track import TransformError, TransformReason
from nre_ros.localization import Localization, Localizer
from nre_ros.ros.camera_input import Snapshot
from nre_ros.ros.conversions import ros_covariance
from nre_ros.ros.frames import CameraMount
from nre_ros.ros.transforms import Buffer, lookup_pose


@dataclass(frozen=True)
class FrameLink:
    """``parent_from_child`` for TF, true at the image's stamp."""

    parent: str
    child: str
    parent_from_child: Pose


@dataclass(frozen=True)
class Fix:
    """An accepted pose, ready to be published.

    ``map_from_out`` is of the base or the camera, as output_frame says; ``covariance`` 36 numbers in ROS's order.
    ``link`` is None where TF is not asked for or cannot be had; then ``link_trouble`` says why, or is empty.
    """

    map_from_out: Pose
    covariance: list[float]
    link: FrameLink | None
    link_trouble: str


@dataclass(frozen=True)
class Answer:
    """What an image came to: a fix, or the reason why there is none."""

    image: Snapshot
    localization: Localization | None
    fix: Fix | None
    reason: str
    bug: str = ""
    """The traceback, when the reason is a fault of this program."""


class Query:
    """Decodes, localizes, and brings the result into the frames that the configuration names.

    ``make_localizer`` is called once, and again when a live parameter of the localizer has changed.
    """

    def __init__(
        self,
        make_localizer: Callable[[LocalizerConfig], Localizer],
        buffer: Buffer,
        current_config: Callable[[], LocalizerNodeConfig],
    ) -> None:
        self._make_localizer = make_localizer
        self._current_config = current_config
        self._config = config = current_config()
        self._localizer = make_localizer(config.localizer)
        self._buffer = buffer
        self._mount = CameraMount(buffer, config.base_frame_id, config.camera_extrinsics, config.tf_timeout)

    def answer(self, image: Snapshot) -> Answer:
        """Never raises: whatever goes wrong with one image must not keep the next from being tried."""
        localization = None
        try:
            frame = image.to_frame()
            self._follow_parameters()
            localization = self._localizer.localize(frame.image_rgb, frame.camera)
            if not localization.accepted:
                return Answer(image, localization, None, localization.reason)
            if localization.covariance is None:
                return Answer(image, localization, None, "the pose has no covariance: the image does not fix it")
            return Answer(image, localization, self._fix(image, localization), "")
        except NreError as error:
            return Answer(image, localization, None, str(error))
        except Exception as error:
            reason = f"internal error, please report it: {type(error).__name__}: {error}"
            return Answer(image, localization, None, reason, traceback.format_exc())

    def warm_up(self, camera: Camera) -> None:
        """So that the first image is not the slow one."""
        self._localizer.warm_up(camera)

    def _follow_parameters(self) -> None:
        before, self._config = self._config, self._current_config()
        if self._config.localizer != before.localizer:
            self._localizer = self._make_localizer(self._config.localizer)

    def _fix(self, image: Snapshot, localization: Localization) -> Fix:
        map_from_cam, covariance = localization.map_from_cam, localization.covariance
        assert map_from_cam is not None and covariance is not None
        out_from_cam = Pose.identity()
        if self._config.output_frame == "base":
            out_from_cam = self._base_from_camera(image)
        map_from_out = map_from_cam @ out_from_cam.inverse()
        link, trouble = None, ""
        try:
            link = self._link(image, map_from_cam)
        except TransformError as error:
            trouble = str(error)
        return Fix(map_from_out, ros_covariance(covariance, map_from_out, out_from_cam), link, trouble)

    def _link(self, image: Snapshot, map_from_cam: Pose) -> FrameLink | None:
        config = self._config
        mode = config.tf_mode if config.tf_broadcast else "none"
        if mode == "none":
            return None
        if mode == "map_to_camera":
            camera_frame = self._camera_frame(image)
            if not camera_frame:
                raise TransformError(
                    TransformReason.UNKNOWN_FRAME,
                    "the image's header.frame_id is empty: set the parameter camera_frame_id",
                )
            return FrameLink(config.global_frame_id, camera_frame, map_from_cam)
        map_from_base = map_from_cam @ self._base_from_camera(image).inverse()
        if mode == "map_to_base":
            return FrameLink(config.global_frame_id, config.base_frame_id, map_from_base)
        return FrameLink(
            config.global_frame_id, config.odom_frame_id, map_from_base @ self._odom_from_base(image).inverse()
        )

    def _odom_from_base(self, image: Snapshot) -> Pose:
        config = self._config
        if image.stamp_ns == 0:  # tf2 takes 0 for "the latest", which would be wrong by the motion since the image
            raise TransformError(TransformReason.INVALID, "the image's header.stamp is 0: stamp images in the driver")
        return lookup_pose(self._buffer, config.odom_frame_id, config.base_frame_id, image.stamp_ns, config.tf_timeout)

    def _base_from_camera(self, image: Snapshot) -> Pose:
        return self._mount.base_from_camera(self._camera_frame(image), image.stamp_ns)

    def _camera_frame(self, image: Snapshot) -> str:
        return self._config.camera_frame_id or image.frame_id
