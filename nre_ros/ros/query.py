"""One image through the localizer to what the node publishes; runs in the worker thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

import numpy as np

from nre_ros.config import LocalizerConfig, LocalizerNodeConfig
from nre_ros.errors import NreError
from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose_track import TransformError
from nre_ros.localization import Localization, Localizer
from nre_ros.localization.localizer import CLOSE_BEHIND
from nre_ros.localization.tracker import Motion, Tracker
from nre_ros.recordings.frame import Frame
from nre_ros.ros.camera_input import Snapshot
from nre_ros.ros.conversions import ros_covariance
from nre_ros.ros.debug_image import draw_debug_image
from nre_ros.ros.initial_pose import InitialPose
from nre_ros.ros.robot_frames import FrameLink, Odometry, RobotFrames
from nre_ros.ros.transforms import Buffer


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
    """What an image came to: a fix, or the reason why there is none.

    ``held``: the image was localized, but its pose contradicts odometry and waits for others that agree with it.
    ``rivals`` are the poses (map_from_out, best first) between which the image does not decide; else there are none.
    ``picture`` is the debug image, if one was asked for. ``bug`` is the traceback when the reason is a fault of this
    program.
    """

    image: Snapshot
    localization: Localization | None
    fix: Fix | None
    reason: str
    bug: str = ""
    held: bool = False
    rivals: tuple[Pose, ...] = ()
    picture: np.ndarray | None = field(default=None, repr=False)


MakeLocalizer = Callable[[LocalizerConfig], Localizer]


class Query:
    """Decodes, localizes, and brings the result into the frames that the configuration names.

    ``make_localizer`` is called once, and again when a live parameter of the localizer has changed. ``wants_picture``
    tells whether somebody looks at debug images. What other threads ask for is done at the next image.
    """

    def __init__(
        self,
        make_localizer: MakeLocalizer,
        buffer: Buffer,
        current_config: Callable[[], LocalizerNodeConfig],
        wants_picture: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make_localizer = make_localizer
        self._current_config = current_config
        self._wants_picture = wants_picture
        self._config = config = current_config()
        self._tracker = Tracker(make_localizer(config.localizer))
        self._frames = RobotFrames(buffer, config)
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._given: InitialPose | None = None

    def answer(self, image: Snapshot) -> Answer:
        """Never raises: whatever goes wrong with one image must not keep the next from being tried."""
        try:
            self._follow()
            if self._tracker.begins_anew(image.stamp_ns):
                self._frames.forget()
            return self._ask(image, image.to_frame())
        except NreError as error:
            return Answer(image, None, None, str(error))
        except Exception as error:
            return _fault(image, None, error)

    def warm_up(self, camera: Camera) -> None:
        """So that the first image is not the slow one."""
        self._tracker.localizer.warm_up(camera)

    def forget(self) -> None:
        """From any thread: the next image is searched for in the whole map, and its pose is not held against others."""
        self._asked.put(self._forget)

    def expect(self, pose: InitialPose) -> None:
        """From any thread: the robot is there when the next image is taken."""
        self._asked.put(lambda: self._expect(pose))

    def replace_map(self, make_localizer: MakeLocalizer, localizer: Localizer) -> None:
        """From any thread: the next image is asked of another map."""
        self._asked.put(lambda: self._replace_map(make_localizer, localizer))

    def _follow(self) -> None:
        """Requests of other threads, and live parameters."""
        while not self._asked.empty():
            self._asked.get()()
        before, self._config = self._config, self._current_config()
        if self._config.localizer != before.localizer:
            self._tracker.localizer = self._make_localizer(self._config.localizer)

    def _forget(self) -> None:
        self._given = None
        self._tracker.forget()

    def _expect(self, pose: InitialPose) -> None:
        self._given = pose

    def _replace_map(self, make_localizer: MakeLocalizer, localizer: Localizer) -> None:
        self._make_localizer = make_localizer
        self._tracker = Tracker(localizer)

    def _ask(self, image: Snapshot, frame: Frame) -> Answer:
        config, tracker = self._config, self._tracker
        view = tracker.localizer.see(frame.image_rgb, frame.camera)
        odometry = self._frames.odometry(image)  # after the network: by now it may have come
        if self._given is not None:
            tracker.expect(
                self._given.prior(self._frames.base_from_camera(image)), image.stamp_ns, odometry.odom_from_cam
            )
            self._given = None
        motion = Motion.of(config)
        found = tracker.find(
            view,
            image.stamp_ns,
            odometry.odom_from_cam,
            config.mode,
            motion,
            config.recheck_every,
            config.consistent_fixes,
        )
        reason, held = found.reason, False
        if found.accepted and found.covariance is None:
            reason = "the pose has no covariance: the image does not fix it"
        elif found.accepted:
            count = config.consistent_fixes
            reason = tracker.objection(found, image.stamp_ns, odometry.odom_from_cam, count, motion)
            held = bool(reason)
        picture = draw_debug_image(frame.image_rgb, found, reason) if self._wants_picture() else None
        try:
            rivals = self._rivals(image, found)
            fix = None if reason else self._fix(image, found, odometry)
            return Answer(image, found, fix, reason, held=held, rivals=rivals, picture=picture)
        except NreError as error:
            return Answer(image, found, None, str(error), picture=picture)
        except Exception as error:
            return _fault(image, found, error)

    def _rivals(self, image: Snapshot, found: Localization) -> tuple[Pose, ...]:
        """The answer and those that come near it, when they are what speaks against it."""
        if not found.ambiguous or found.map_from_cam is None:
            return ()
        near = [pose for pose, share in zip(found.hypotheses, found.rivalry, strict=True) if share > CLOSE_BEHIND]
        cam_from_out = self._frames.out_from_camera(image).inverse()
        return tuple(map_from_cam @ cam_from_out for map_from_cam in (found.map_from_cam, *near))

    def _fix(self, image: Snapshot, localization: Localization, odometry: Odometry) -> Fix:
        map_from_cam, covariance = localization.map_from_cam, localization.covariance
        assert map_from_cam is not None and covariance is not None
        out_from_cam = self._frames.out_from_camera(image)
        map_from_out = map_from_cam @ out_from_cam.inverse()
        link, trouble = None, ""
        try:
            link = self._frames.link(image, map_from_cam, odometry)
        except TransformError as error:
            trouble = str(error)
        return Fix(map_from_out, ros_covariance(covariance, map_from_out, out_from_cam), link, trouble)


def _fault(image: Snapshot, found: Localization | None, error: Exception) -> Answer:
    reason = f"internal error, please report it: {type(error).__name__}: {error}"
    return Answer(image, found, None, reason, traceback.format_exc())
