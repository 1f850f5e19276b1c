"""COLMAP's models, binary and text: cameras, poses and the 3D points that each image sees.

Models of COLMAP 3.12 and later bring rigs and frames files along; the images' own poses stand in the images file as
before, so those two are not needed.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nre_ros.errors import RecordingError
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings.colmap_cameras import KNOWN, MODELS, PIXEL_SHIFT, camera_of, model_number

_NO_POINT = 2**64 - 1
_OBSERVATION = np.dtype([("uv", "<f8", 2), ("point", "<u8")])


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
    """``xyz`` (M, 3) float64 of the points with ids ``point`` (M,), ascending.

    ``refused`` counts the images left out by the name of their camera model, for which ROS has no name.
    """

    images: tuple[ColmapImage, ...]
    point: np.ndarray
    xyz: np.ndarray
    refused: dict[str, int]

    def xyz_of(self, ids: np.ndarray) -> np.ndarray:
        """Points (P, 3) by id."""
        return self.xyz[np.searchsorted(self.point, ids)]


def model_suffix(folder: Path) -> str:
    """ ".bin" or ".txt" of the model whose cameras and images lie in the folder, "" without one; binary goes first."""
    kinds = (".bin", ".txt")
    return next((s for s in kinds if all((folder / f"{n}{s}").is_file() for n in ("cameras", "images"))), "")


def read_model(folder: str | Path) -> ColmapModel:
    """The model in a folder with cameras, images and points3D, all .bin or all .txt.

    Images of a camera model that ROS has no name for are left out. Raises RecordingError when a file is missing, cut
    off or holds no image.
    """
    folder = Path(folder)
    read = _TextFiles(folder) if model_suffix(folder) == ".txt" else _BinaryFiles(folder)
    cameras: dict[int, Camera | str] = {}
    try:
        for number, model, width, height, values in read.cameras():
            try:
                cameras[number] = camera_of(model, width, height, values)
            except ValueError as error:
                raise ValueError(f"camera {number}: {error}") from error
        point, xyz = _sorted_points(read.points())
        images, refused = _images(read.images(), cameras, point)
    except OSError as error:
        raise RecordingError(f"COLMAP model {folder} cannot be read: {error}") from error
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise RecordingError(f"COLMAP model {folder} is cut off or damaged ({error}); export it again") from error
    if not images:
        names = f", {' and '.join(sorted(refused))} is not" if refused else ""
        raise RecordingError(
            f"COLMAP model {folder} holds no image with a camera model that is known here{names}; known are {KNOWN}"
        )
    return ColmapModel(tuple(images), point, xyz, refused)


@dataclass(frozen=True)
class _Row:
    """An image as it stands in the file: pixels and quaternion order are COLMAP's."""

    quat_wxyz: tuple[float, float, float, float]
    translation: tuple[float, float, float]
    camera: int
    name: str
    seen: np.ndarray


_CameraRow = tuple[int, int, int, int, tuple[float, ...]]
"""Number, number of the model, width, height, parameters."""
_PointRow = tuple[int, tuple[float, float, float]]


class _BinaryFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cameras(self) -> Iterator[_CameraRow]:
        data = (self._folder / "cameras.bin").read_bytes()
        (count,), at = struct.unpack_from("<Q", data), 8
        for _ in range(count):
            number, model, width, height = struct.unpack_from("<IiQQ", data, at)
            values = struct.unpack_from(f"<{MODELS[model].parameters}d", data, at + 24)
            at += 24 + 8 * len(values)
            yield number, model, width, height, values

    def points(self) -> Iterator[_PointRow]:
        data = (self._folder / "points3D.bin").read_bytes()
        (count,), at = struct.unpack_from("<Q", data), 8
        for _ in range(count):
            number, x, y, z = struct.unpack_from("<Q3d", data, at)
            (track,) = struct.unpack_from("<Q", data, at + 43)  # after red, green, blue and the error
            at += 51 + 8 * track
            yield number, (x, y, z)

    def images(self) -> Iterator[_Row]:
        data = (self._folder / "images.bin").read_bytes()
        (count,), at = struct.unpack_from("<Q", data), 8
        for _ in range(count):
            _, qw, qx, qy, qz, tx, ty, tz, camera = struct.unpack_from("<I7dI", data, at)
            end = data.index(b"\0", at + 64)
            name = data[at + 64 : end].decode()
            (observations,) = struct.unpack_from("<Q", data, end + 1)
            seen = np.frombuffer(data, _OBSERVATION, observations, end + 9)
            at = end + 9 + _OBSERVATION.itemsize * observations
            yield _Row((qw, qx, qy, qz), (tx, ty, tz), camera, name, seen)


class _TextFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cameras(self) -> Iterator[_CameraRow]:
        for line in self._rows("cameras"):
            number, model, width, height, *values = line.split()
            yield int(number), model_number(model), int(width), int(height), tuple(map(float, values))

    def points(self) -> Iterator[_PointRow]:
        for line in self._rows("points3D"):
            number, x, y, z = line.split(maxsplit=4)[:4]
            yield int(number), (float(x), float(y), float(z))

    def images(self) -> Iterator[_Row]:
        """Two lines an image, the second of which is empty where nothing was seen."""
        lines = self._lines("images")
        announced, count = _announced("images", lines), 0
        rest = iter(lines)
        for line in rest:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            count += 1
            words = text.split(maxsplit=9)
            if len(words) < 10:
                raise ValueError(f"images.txt has the line {text!r}, expected an image's id, pose, camera and name")
            qw, qx, qy, qz, tx, ty, tz = map(float, words[1:8])
            numbers = next(rest, "").split()
            if len(numbers) % 3:
                raise ValueError(f"images.txt has {len(numbers)} numbers of points for {words[9]}, expected triples")
            seen = np.zeros(len(numbers) // 3, _OBSERVATION)
            seen["uv"] = np.array(numbers, object).reshape(-1, 3)[:, :2].astype(np.float64)
            seen["point"] = [int(v) if v != "-1" else _NO_POINT for v in numbers[2::3]]
            yield _Row((qw, qx, qy, qz), (tx, ty, tz), int(words[8]), words[9], seen)

        _check_count("images", announced, count)

    def _rows(self, name: str) -> Iterator[str]:
        lines = self._lines(name)
        rows = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        _check_count(name, _announced(name, lines), len(rows))
        yield from rows

    def _lines(self, name: str) -> list[str]:
        return (self._folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def _announced(name: str, lines: list[str]) -> int | None:
    """The count in COLMAP's comment "# Number of images: 128, mean observations per image: 801"."""
    what = "points" if name == "points3D" else name
    for line in lines[:8]:
        if found := re.match(rf"#\s*Number of {what}:\s*(\d+)", line):
            return int(found[1])
    return None


def _check_count(name: str, announced: int | None, count: int) -> None:
    if announced is not None and count < announced:
        raise ValueError(f"{name}.txt announces {announced} {name} and holds {count}")


def _sorted_points(rows: Iterator[_PointRow]) -> tuple[np.ndarray, np.ndarray]:
    ids, xyz = [], []
    for number, place in rows:
        ids.append(number)
        xyz.append(place)
    point = np.array(ids, np.uint64)
    order = np.argsort(point)
    return point[order], np.array(xyz, np.float64).reshape(-1, 3)[order]


def _images(
    rows: Iterator[_Row], cameras: dict[int, Camera | str], known: np.ndarray
) -> tuple[list[ColmapImage], dict[str, int]]:
    images, refused = [], Counter[str]()
    for row in rows:
        if row.camera not in cameras:
            raise ValueError(f"image {row.name} has the camera {row.camera}, which is not among the cameras")
        camera = cameras[row.camera]
        if isinstance(camera, str):
            refused[camera] += 1
            continue
        seen = row.seen[(row.seen["point"] != _NO_POINT) & np.isin(row.seen["point"], known)]
        qw, *vector = row.quat_wxyz
        pose = Pose.from_quat_xyzw(
            torch.tensor(row.translation, dtype=torch.float64), torch.tensor([*vector, qw], dtype=torch.float64)
        )
        images.append(ColmapImage(row.name, camera, pose, seen["uv"] - PIXEL_SHIFT, seen["point"].copy()))
    return images, dict(refused)
