"""TUM RGB-D folders: images with a list of their times, and the camera's poses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose_track import (
    PoseTrack,
    TransformError,
    nearest_index,
    pose_from_rigid,
    rigid_from_xyzw,
    seconds,
)
from nre_ros.recordings.camera_info import camera_from_mapping, check_size, read_calibration
from nre_ros.recordings.compressed import decode_compressed, decode_counts
from nre_ros.recordings.frame import Frame
from nre_ros.recordings.images import depth_from_counts
from nre_ros.recordings.tables import check_role, read_file_list, read_roles, read_stamped_rows

NEAREST_NS = 20_000_000
"""Furthest that a pose or a depth image may be from its colour image when it is taken as it is."""
INTERPOLATION_GAP_NS = 100_000_000
"""Poses this far apart are not interpolated."""
TUM_DEPTH_SCALE = 5000.0
"""Counts per metre of the TUM RGB-D data set's depth images."""


class TumRecording:
    """A folder with ``rgb.txt``, ``camera.yaml`` and, if it has them, ``groundtruth.txt``, ``depth.txt``,
    ``split.txt``.

    ``groundtruth.txt`` holds map_from_cam of the optical frame (timestamp tx ty tz qx qy qz qw). An image takes the
    pose of its own stamp; else it is interpolated between poses less than 0.1 s apart; else the nearest within 20 ms
    is taken; else the frame has none. ``camera.yaml`` is a ROS calibration file with two keys of ours, both optional:
    ``unit`` ("metre", the default, or "arbitrary") of the poses, and ``depth_scale`` (default 5000), counts per metre
    of the 16-bit depth PNGs.

    Raises RecordingError or CalibrationError for what makes the whole folder unusable.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self.problems: list[str] = []
        calibration_path = self.folder / "camera.yaml"
        try:
            calibration = read_calibration(calibration_path)
        except CalibrationError as error:
            raise RecordingError(f"recording {self.folder} has no usable calibration: {error}") from None
        self.camera: Camera = camera_from_mapping(calibration, str(calibration_path))
        self.unit = _unit(calibration.get("unit", "metre"), calibration_path)
        self._depth_scale = _positive(calibration.get("depth_scale", TUM_DEPTH_SCALE), calibration_path)
        self._images = read_file_list(self.folder / "rgb.txt")
        if not self._images:
            raise RecordingError(f"{self.folder / 'rgb.txt'} lists no images, expected lines 'timestamp filename'")
        self.roles = read_roles(self.folder)
        self._depths = read_file_list(self.folder / "depth.txt") if (self.folder / "depth.txt").exists() else []
        self._depth_stamps_ns = [stamp_ns for stamp_ns, _ in self._depths]
        self._track, self._bad_poses_ns = _read_poses(self.folder / "groundtruth.txt")
        self._pose_stamps_ns = sorted({*self._track.stamps_ns, *self._bad_poses_ns})

    @property
    def cameras(self) -> list[Camera]:
        return [self.camera]

    @property
    def has_depth(self) -> bool:
        return bool(self._depths)

    @property
    def posed_count(self) -> int:
        """Images with a finite pose near their time."""
        return sum(self._has_pose(stamp_ns) for stamp_ns, _ in self._images)

    def count(self, split: str | None = None) -> int:
        """Images of the role; raises RecordingError for a role the folder does not define."""
        return len(self._selected(split))

    def require_poses(self) -> None:
        """Raises RecordingError when no frame can have a pose."""
        if not self._track:
            raise RecordingError(
                f"recording {self.folder} has no poses: expected {self.folder / 'groundtruth.txt'} with lines "
                "'timestamp tx ty tz qx qy qz qw'"
            )

    def frames(self, split: str | None = None) -> Iterator[Frame]:
        """Frames in the order of time. Raises CalibrationError when an image is not of the size in camera.yaml, and
        RecordingError when not a single image can be read."""
        images = self._selected(split)
        return self._frames(images)

    def image_bytes(self, frame: Frame) -> bytes:
        """The image file that a frame was decoded from."""
        return (self.folder / frame.name).read_bytes()

    def _selected(self, split: str | None) -> list[tuple[int, str]]:
        check_role(split, self.roles, str(self.folder))
        return [row for row in self._images if split is None or self.roles.get(row[0]) == split]

    def _frames(self, images: list[tuple[int, str]]) -> Iterator[Frame]:
        self.problems = []
        readable, poseless = 0, 0
        for stamp_ns, name in images:
            try:
                image = decode_compressed(Path(name).suffix, self._read(name))
                map_from_cam = self._pose_at(stamp_ns)
            except RecordingError as error:
                self.problems.append(f"{self.folder / name} is left out: {error}")
                continue
            check_size(self.camera, image)
            readable += 1
            poseless += map_from_cam is None
            yield Frame(stamp_ns, image, self.camera, map_from_cam, self._depth_at(stamp_ns, image), name)
        if poseless and self._track:
            self.problems.append(f"{poseless} of {len(images)} images of {self.folder} have no pose near their time")
        if images and not readable:
            raise RecordingError(f"none of the {len(images)} images of {self.folder} is usable; {self.problems[0]}")

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise RecordingError(f"it cannot be read ({error.strerror})") from None

    def _pose_at(self, stamp_ns: int) -> Pose | None:
        """map_from_cam, None where there is none near; raises RecordingError when the pose meant for it is NaN."""
        nearest = nearest_index(self._pose_stamps_ns, stamp_ns, NEAREST_NS)
        if nearest is not None and self._pose_stamps_ns[nearest] in self._bad_poses_ns:
            raise RecordingError(f"its pose, of {seconds(self._pose_stamps_ns[nearest])} s, holds NaN or infinity")
        try:
            return pose_from_rigid(self._track.at_or_near(stamp_ns, NEAREST_NS))
        except TransformError:
            return None

    def _has_pose(self, stamp_ns: int) -> bool:
        try:
            return self._pose_at(stamp_ns) is not None
        except RecordingError:
            return False

    def _depth_at(self, stamp_ns: int, image: np.ndarray) -> np.ndarray | None:
        nearest = nearest_index(self._depth_stamps_ns, stamp_ns, NEAREST_NS)
        if nearest is None:
            return None
        name = self._depths[nearest][1]
        try:
            depth_m = depth_from_counts(decode_counts(self._read(name)), self._depth_scale)
        except RecordingError as error:
            self.problems.append(f"{self.folder / name} is left out: {error}")
            return None
        if depth_m.shape != image.shape[:2]:
            raise RecordingError(
                f"depth image {self.folder / name} is {depth_m.shape[1]}x{depth_m.shape[0]}, its colour image "
                f"{image.shape[1]}x{image.shape[0]}; register the depth to the colour image"
            )
        return depth_m


def _read_poses(path: Path) -> tuple[PoseTrack, set[int]]:
    """The finite poses, and the stamps of those that are not; both empty without the file."""
    track = PoseTrack(path.name, max_gap_ns=INTERPOLATION_GAP_NS)
    bad: set[int] = set()
    for where, stamp_ns, text in read_stamped_rows(path) if path.exists() else ():
        try:
            numbers = [float(v) for v in text.split()]
        except ValueError:
            numbers = []
        if len(numbers) != 7:
            raise RecordingError(f"{where} has {text!r} after the time, expected tx ty tz qx qy qz qw")
        if not all(map(math.isfinite, numbers)):
            bad.add(stamp_ns)
            continue
        try:
            track.add(stamp_ns, rigid_from_xyzw(numbers[:3], numbers[3:]))
        except TransformError as error:
            raise RecordingError(f"{where}: {error}; is the order of the columns tx ty tz qx qy qz qw?") from None
    return track, bad


def _unit(value: object, path: Path) -> str:
    if value not in ("metre", "arbitrary"):
        raise RecordingError(f"{path} has the unit {value!r}, expected metre or arbitrary")
    return str(value)


def _positive(value: object, path: Path) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise RecordingError(f"{path} has the depth_scale {value!r}, expected the counts per metre, such as 5000")
