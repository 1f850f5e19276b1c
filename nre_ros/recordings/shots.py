"""Recordings whose images lie as files in a folder, each with a camera and a pose of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings.camera_info import check_size
from nre_ros.recordings.compressed import decode_compressed, decode_counts
from nre_ros.recordings.frame import Frame
from nre_ros.recordings.images import depth_from_counts
from nre_ros.recordings.tables import SPLIT_FILE, check_role, read_lines

STAMP_STEP_NS = 1_000_000_000
"""Between the made-up stamps of images that have none, in the order of their names."""
_ROTATION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Shot:
    """One image file. ``name`` is what the source calls it; ``map_from_cam`` is of the optical frame."""

    stamp_ns: int
    name: str
    file: Path
    camera: Camera
    map_from_cam: Pose | None
    depth_file: Path | None = None


@dataclass(frozen=True)
class DepthCounts:
    """What the numbers in depth images mean: ``per_metre`` of them, and ``unknown`` besides 0."""

    per_metre: float = 1000.0
    unknown: int | None = None


@dataclass
class ShotList:
    """What a folder was found to hold. ``told`` are the problems met on the way, ``remarks`` what is good to know."""

    shots: list[Shot]
    unit: str
    roles: Mapping[str, str] = field(default_factory=dict)
    """By name of the image; a ``split.txt`` in the folder goes before it."""
    depth: DepthCounts = DepthCounts()
    told: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class ShotRecording:
    """The frames of a :class:`ShotList`, in the order of their stamps.

    A ``split.txt`` in the folder gives roles, a line "image-name role" each. An image that cannot be read, or is not of
    its camera's size, is left out and told. Raises RecordingError for a list without images.
    """

    def __init__(self, path: Path, found: ShotList) -> None:
        self.path = path
        self.name = path.resolve().name if path.is_dir() else path.resolve().parent.name
        self.unit = found.unit
        self.remarks = found.remarks
        self.problems: list[str] = list(found.told)
        self._found = found
        self._shots = sorted(found.shots, key=lambda shot: shot.stamp_ns)
        if not self._shots:
            raise RecordingError(f"{path} holds no image that can be used; {(found.told or ['it lists none'])[0]}")
        self._files = {shot.stamp_ns: shot.file for shot in self._shots}
        by_name = _named_roles(path, {shot.name for shot in self._shots}) or found.roles
        self.roles = {shot.stamp_ns: by_name[shot.name] for shot in self._shots if shot.name in by_name}

    @property
    def cameras(self) -> list[Camera]:
        """Each different one once."""
        return list(dict.fromkeys(shot.camera for shot in self._shots))

    @property
    def has_depth(self) -> bool:
        return any(shot.depth_file is not None for shot in self._shots)

    @property
    def posed_count(self) -> int:
        return sum(shot.map_from_cam is not None for shot in self._shots)

    def count(self, split: str | None = None) -> int:
        """Images of the role; raises RecordingError for a role the folder does not define."""
        return len(self._selected(split))

    def require_poses(self) -> None:
        """Raises RecordingError when no frame can have a pose."""
        if not self.posed_count:
            told = f"; {self._found.told[0]}" if self._found.told else ""
            raise RecordingError(f"recording {self.path} has no poses: none of its {self.count()} images has one{told}")

    def frames(self, split: str | None = None) -> Iterator[Frame]:
        """Raises RecordingError when not a single image can be read."""
        return self._frames(self._selected(split))

    def image_bytes(self, frame: Frame) -> bytes:
        """The image file that a frame was decoded from."""
        return self._files[frame.stamp_ns].read_bytes()

    def _selected(self, split: str | None) -> list[Shot]:
        check_role(split, self.roles, str(self.path))
        return [shot for shot in self._shots if split is None or self.roles.get(shot.stamp_ns) == split]

    def _frames(self, shots: list[Shot]) -> Iterator[Frame]:
        self.problems = list(self._found.told)
        readable = 0
        for shot in shots:
            try:
                image = decode_compressed(shot.file.suffix, _read(shot.file))
                check_size(shot.camera, image)
            except (RecordingError, CalibrationError) as error:
                self.problems.append(f"{shot.file} is left out: {error}")
                continue
            readable += 1
            yield Frame(shot.stamp_ns, image, shot.camera, shot.map_from_cam, self._depth_of(shot), shot.name)
        poseless = sum(shot.map_from_cam is None for shot in shots)
        if poseless:
            self.problems.append(f"{poseless} of {len(shots)} images of {self.path} have no pose")
        if shots and not readable:
            raise RecordingError(f"none of the {len(shots)} images of {self.path} is usable; {self.problems[-1]}")

    def _depth_of(self, shot: Shot) -> np.ndarray | None:
        if shot.depth_file is None:
            return None
        try:
            counts = decode_counts(_read(shot.depth_file))
            return depth_from_counts(_of_size(counts, shot.camera, self._found.depth), self._found.depth.per_metre)
        except RecordingError as error:
            self.problems.append(f"{shot.depth_file} is left out: {error}")
            return None


def pose_from_rows(rows: object) -> Pose:
    """From the rows of a matrix (4, 4) or (3, 4), its rotation made exact.

    Raises RecordingError for anything that is no rigid transform.
    """
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError):
        raise RecordingError("its pose is no matrix of numbers") from None
    if matrix.shape not in ((4, 4), (3, 4)):
        raise RecordingError(f"its pose is a matrix of shape {matrix.shape}, expected (4, 4)")
    if not np.isfinite(matrix).all():
        raise RecordingError("its pose holds NaN or infinity")
    rotation = matrix[:3, :3]
    off = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if off > _ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise RecordingError(f"its pose has no rotation in its first 3 x 3 numbers (off by {off:.3g})")
    u, _, v = np.linalg.svd(rotation)
    return Pose(torch.from_numpy(u @ v), torch.from_numpy(matrix[:3, 3].copy()))


def missing_files(files: Sequence[Path], what: str) -> list[str]:
    """A sentence on those that are not there, if any."""
    missing = [file for file in files if not file.is_file()]
    if not missing:
        return []
    return [f"{len(missing)} of {len(files)} {what} are missing and left out, such as {missing[0]}; copy them there"]


def _named_roles(path: Path, names: set[str]) -> dict[str, str]:
    """Role by image name from the folder's ``split.txt``; empty without that file. Raises RecordingError."""
    table = path / SPLIT_FILE
    if not table.is_file():
        return {}
    roles = {}
    for number, line in enumerate(read_lines(table), 1):
        words = line.strip().rsplit(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in names:
            raise RecordingError(
                f"{table} line {number} is {line.strip()!r}, expected 'image-name role' such as '{min(names)} map'"
            )
        roles[words[0]] = words[1]
    return roles


def _of_size(counts: np.ndarray, camera: Camera, meaning: DepthCounts) -> np.ndarray:
    """Counts (H, W) of the camera's size, 0 where unknown; a smaller depth image of the same view is enlarged."""
    if meaning.unknown is not None:
        counts = np.where(counts == meaning.unknown, 0, counts).astype(counts.dtype)
    height, width = counts.shape
    if (width, height) == (camera.width, camera.height):
        return counts
    if abs(width * camera.height - height * camera.width) > 0.01 * width * camera.height:
        raise RecordingError(
            f"depth image is {width}x{height}, its colour image {camera.width}x{camera.height}; register the depth to "
            "the colour image"
        )
    return cv2.resize(counts, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RecordingError(f"it cannot be read ({error.strerror})") from None
