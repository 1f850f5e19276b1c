"""Folders of the Cambridge Landmarks data set, and of others posed as PoseNet's were."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings.camera_info import camera_from_yaml
from nre_ros.recordings.shots import STAMP_STEP_NS, Shot, ShotList, ShotRecording, missing_files

TABLES = {"dataset_train.txt": "map", "dataset_test.txt": "query"}
MODEL = "reconstruction.nvm"
CALIBRATION = "camera.yaml"


def is_cambridge(folder: Path) -> bool:
    return any((folder / table).is_file() for table in TABLES)


def open_cambridge(folder: Path) -> ShotRecording:
    """``dataset_train.txt`` (role map) and ``dataset_test.txt`` (role query): three lines of heading, then
    "seq1/frame00001.png X Y Z W P Q R", the camera's centre in metres and the rotation of cam_from_map, w x y z.

    The focal length of each image is that of ``reconstruction.nvm`` (VisualSFM), its centre that of the image; the
    small radial distortion there is left out, as the literature does. A ROS ``camera.yaml`` in the folder goes before
    it, for all images. Stamps are made up: a second between images in the order of their names.

    Raises RecordingError and CalibrationError.
    """
    rows = {
        name: (role, pose)
        for table, role in TABLES.items()
        if (folder / table).is_file()
        for name, pose in _poses(folder / table).items()
    }
    told = missing_files([folder / name for name in rows], f"images of {folder}")
    cameras = _Cameras(folder)
    shots = []
    for i, name in enumerate(sorted(rows)):
        if not (folder / name).is_file():
            continue
        camera = cameras.of(name)
        if camera is None:
            told.append(f"{folder / name} is left out: {MODEL} does not list it, so its focal length is not known")
            continue
        shots.append(Shot(i * STAMP_STEP_NS, name, folder / name, camera, rows[name][1]))
    return ShotRecording(folder, ShotList(shots, "metre", {name: role for name, (role, _) in rows.items()}, told=told))


def _poses(table: Path) -> dict[str, Pose]:
    """map_from_cam by image."""
    poses = {}
    for number, line in enumerate(_lines(table), 1):
        words = line.split()
        if number <= 3 or not words:
            continue
        try:
            x, y, z, qw, qx, qy, qz = (float(word) for word in words[1:])
        except ValueError:
            raise RecordingError(f"{table} line {number} is {line!r}, expected 'image X Y Z W P Q R'") from None
        rotation = _rotation(qx, qy, qz, qw, f"{table} line {number}")
        poses[words[0]] = Pose(rotation.mT, torch.tensor([x, y, z], dtype=torch.float64))
    return poses


def _rotation(qx: float, qy: float, qz: float, qw: float, where: str) -> torch.Tensor:
    quat_xyzw = torch.tensor([qx, qy, qz, qw], dtype=torch.float64)
    if not abs(float(quat_xyzw.norm()) - 1) < 1e-2:
        raise RecordingError(f"{where} has a quaternion of length {float(quat_xyzw.norm()):.3g}, expected 1")
    return Pose.from_quat_xyzw(torch.zeros(3, dtype=torch.float64), quat_xyzw).rotation


class _Cameras:
    """The camera of each image, from camera.yaml or the model; the size of the first image is that of all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        given = folder / CALIBRATION
        self._given = camera_from_yaml(given) if given.is_file() else None
        self._focal = _focal_lengths(folder / MODEL) if self._given is None else {}
        self._size: tuple[int, int] | None = None

    def of(self, name: str) -> Camera | None:
        if self._given is not None:
            return self._given
        focal = self._focal.get(str(Path(name).with_suffix("")))
        if focal is None:
            return None
        width, height = self._image_size(name)
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def _image_size(self, name: str) -> tuple[int, int]:
        if self._size is None:
            image = cv2.imread(str(self._folder / name))
            if image is None:
                raise RecordingError(f"{self._folder / name} is no image that can be read")
            self._size = (image.shape[1], image.shape[0])
        return self._size


def _focal_lengths(model: Path) -> dict[str, float]:
    """Pixels, by image without its suffix (the model's images are .jpg, the published ones .png)."""
    if not model.is_file():
        raise CalibrationError(
            f"{model} does not exist, so the focal lengths are not known; take it from the data set's archive, or put "
            f"a ROS {CALIBRATION} beside it"
        )
    lines = [line.split() for line in _lines(model)]
    try:
        start = next(i for i, words in enumerate(lines) if i and len(words) == 1)
        cameras = lines[start + 1 : start + 1 + int(lines[start][0])]
        return {str(Path(words[0]).with_suffix("")): float(words[1]) for words in cameras}
    except (StopIteration, ValueError, IndexError):
        raise CalibrationError(f"{model} is no NVM_V3 file: its list of cameras cannot be read") from None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file} cannot be read: {error}") from None
