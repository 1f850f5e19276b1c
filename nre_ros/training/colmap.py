"""COLMAP's binary models: cameras, poses and the 3D points that each image sees."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, DistortionModel, Pose

PIXEL_SHIFT = 0.5
"""COLMAP puts the centre of the top-left pixel at (0.5, 0.5), this package at (0, 0)."""

_PARAMETERS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 5: 8, 6: 12, 7: 5, 8: 4, 9: 5, 10: 12}
"""COLMAP's model number to its count of parameters."""
_NO_POINT = 2**64 - 1


@dataclass(frozen=True)
class ColmapImage:
    """``uv_px`` (P, 2) observations in this package's pixels of the points ``point`` (P,), ids as in the model."""

    name: str
    camera: Camera
    cam_from_world: Pose
    uv_px: np.ndarray
    point: np.ndarray


@dataclass(frozen=True)
class ColmapModel:
    """``xyz`` (M, 3) float64 of the points with ids ``point`` (M,), ascending."""

    images: tuple[ColmapImage, ...]
    point: np.ndarray
    xyz: np.ndarray

    def xyz_of(self, ids: np.ndarray) -> np.ndarray:
        """Points (P, 3) by id."""
        return self.xyz[np.searchsorted(self.point, ids)]


def read_model(folder: str | Path) -> ColmapModel:
    """The model in a folder with cameras.bin, images.bin and points3D.bin.

    Images of a camera model that ROS has no name for are left out. Raises RecordingError when a file is missing, cut
    off or holds no image.
    """
    folder = Path(folder)
    try:
        cameras = _cameras((folder / "cameras.bin").read_bytes())
        point, xyz = _points((folder / "points3D.bin").read_bytes())
        images = _images((folder / "images.bin").read_bytes(), cameras, point)
    except OSError as error:
        raise RecordingError(f"COLMAP model {folder} cannot be read: {error}") from error
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise RecordingError(f"COLMAP model {folder} is cut off or damaged ({error}); export it again") from error
    if not images:
        raise RecordingError(f"COLMAP model {folder} holds no image with a camera model that is known here")
    return ColmapModel(tuple(images), point, xyz)


def camera_of(model: int, width: int, height: int, values: tuple[float, ...]) -> Camera | None:
    """COLMAP's camera in this package's terms; None for FOV and thin-prism models."""
    single = model in (0, 2, 3, 8, 9)
    fx, fy = (values[0], values[0]) if single else values[:2]
    cx, cy = values[1:3] if single else values[2:4]
    rest = values[3:] if single else values[4:]
    distortion: tuple[float, ...]
    kind = DistortionModel.PLUMB_BOB
    if model in (0, 1):  # SIMPLE_PINHOLE, PINHOLE
        distortion = ()
    elif model in (2, 3, 4):  # SIMPLE_RADIAL, RADIAL, OPENCV
        distortion = tuple(rest)
    elif model == 6:  # FULL_OPENCV
        kind, distortion = DistortionModel.RATIONAL, tuple(rest)
    elif model in (5, 8, 9):  # OPENCV_FISHEYE, SIMPLE_RADIAL_FISHEYE, RADIAL_FISHEYE
        kind, distortion = DistortionModel.EQUIDISTANT, tuple(rest)
    else:
        return None
    return Camera(width, height, fx, fy, cx - PIXEL_SHIFT, cy - PIXEL_SHIFT, kind, distortion)


def _cameras(data: bytes) -> dict[int, Camera | None]:
    (count,), at, cameras = struct.unpack_from("<Q", data), 8, {}
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<IiQQ", data, at)
        values = struct.unpack_from(f"<{_PARAMETERS[model]}d", data, at + 24)
        at += 24 + 8 * len(values)
        try:
            cameras[number] = camera_of(model, width, height, values)
        except CalibrationError as error:
            raise ValueError(f"camera {number}: {error}") from error
    return cameras


def _points(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    (count,), at = struct.unpack_from("<Q", data), 8
    ids, xyz = [], []
    for _ in range(count):
        number, x, y, z = struct.unpack_from("<Q3d", data, at)
        (track,) = struct.unpack_from("<Q", data, at + 43)  # after red, green, blue and the error
        at += 51 + 8 * track
        ids.append(number)
        xyz.append((x, y, z))
    point = np.array(ids, np.uint64)
    order = np.argsort(point)
    return point[order], np.array(xyz, np.float64).reshape(-1, 3)[order]


_OBSERVATION = np.dtype([("uv", "<f8", 2), ("point", "<u8")])


def _images(data: bytes, cameras: dict[int, Camera | None], known: np.ndarray) -> list[ColmapImage]:
    (count,), at, images = struct.unpack_from("<Q", data), 8, []
    for _ in range(count):
        _, qw, qx, qy, qz, tx, ty, tz, camera_id = struct.unpack_from("<I7dI", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode()
        (observations,) = struct.unpack_from("<Q", data, end + 1)
        seen = np.frombuffer(data, _OBSERVATION, observations, end + 9)
        at = end + 9 + _OBSERVATION.itemsize * observations
        seen = seen[(seen["point"] != _NO_POINT) & np.isin(seen["point"], known)]
        camera = cameras[camera_id]
        if camera is None:
            continue
        pose = Pose.from_quat_xyzw(
            torch.tensor([tx, ty, tz], dtype=torch.float64), torch.tensor([qx, qy, qz, qw], dtype=torch.float64)
        )
        images.append(ColmapImage(name, camera, pose, seen["uv"] - PIXEL_SHIFT, seen["point"].copy()))
    return images
