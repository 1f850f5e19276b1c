"""``transforms.json`` of nerfstudio and instant-ngp: images with cameras and poses in OpenGL's axes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.recordings.compressed import decode_compressed
from nre_ros.recordings.shots import STAMP_STEP_NS, DepthCounts, Shot, ShotList, ShotRecording, pose_from_rows

FILE_NAME = "transforms.json"
PIXEL_SHIFT = 0.5
"""Here the centre of the top-left pixel is at (0.5, 0.5), in this package at (0, 0)."""
_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
_FROM_OPTICAL = Pose(
    torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64)
)
"""OpenGL's camera axes (x right, y up, z backward) from the optical frame's."""
_MODELS = {
    "PINHOLE": DistortionModel.PLUMB_BOB,
    "SIMPLE_PINHOLE": DistortionModel.PLUMB_BOB,
    "SIMPLE_RADIAL": DistortionModel.PLUMB_BOB,
    "RADIAL": DistortionModel.PLUMB_BOB,
    "OPENCV": DistortionModel.PLUMB_BOB,
    "OPENCV_FISHEYE": DistortionModel.EQUIDISTANT,
}
_ROLES = {"train_filenames": "map", "val_filenames": "query", "test_filenames": "query"}


def open_transforms(path: Path) -> ShotRecording:
    """The images that a ``transforms.json`` lists: ``path`` is that file or its folder.

    Intrinsics stand in the frame or, for all, at the top: ``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h``, or
    ``camera_angle_x``; ``camera_model`` is OPENCV or OPENCV_FISHEYE with ``k1``... ``p2``. ``file_path`` may lack its
    suffix. Stamps are made up, one second apart in the order of the names. ``train_filenames`` get the role map,
    ``val_`` and ``test_filenames`` query; a ``split.txt`` goes before them.

    Depth (``depth_file_path``, or instant-ngp's ``depth_path``) is in units of ``integer_depth_scale`` or
    ``depth_unit_scale_factor``, by default millimetres. The unit is metre where there is depth, else arbitrary. Poses
    stay as they are in the file: what nerfstudio changed on them (``applied_transform``) is remarked, not undone.

    Raises RecordingError for a file that is damaged or lists no image that can be used.
    """
    file = path / FILE_NAME if path.is_dir() else path
    content = _content(file)
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise RecordingError(f"{file} lists no frames, expected a list under the key frames")
    told: list[str] = []
    entries: list[tuple[str, dict[str, Any]]] = []
    for index, frame in enumerate(frames):
        if isinstance(frame, dict) and isinstance(frame.get("file_path"), str):
            entries.append((str(PurePosixPath(frame["file_path"])), frame))
        else:
            told.append(f"frame {index} of {file} is left out: it has no file_path")
    entries.sort(key=lambda entry: entry[0])
    shared = _size_of_first(entries, file.parent) | content
    shots = []
    for index, (name, frame) in enumerate(entries):
        try:
            shots.append(_shot(index, name, shared | frame, file.parent))
        except (RecordingError, CalibrationError) as error:
            told.append(f"{name} of {file} is left out: {error}")
    unit = "metre" if any(shot.depth_file for shot in shots) else "arbitrary"
    depth = DepthCounts(_counts_per_metre(content, file))
    return ShotRecording(path, ShotList(shots, unit, _roles(content), depth, told, _remarks(content)))


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise RecordingError(f"{file} is cut off or damaged ({error}); export it again") from None
    if not isinstance(content, dict):
        raise RecordingError(f"{file} holds no keys, expected frames and others")
    return content


def _image_file(folder: Path, name: str) -> Path:
    for suffix in _SUFFIXES:
        if (file := folder / f"{name}{suffix}").is_file():
            return file
    raise RecordingError(f"its image {folder / name} is missing")


def _size_of_first(entries: list[tuple[str, dict[str, Any]]], folder: Path) -> dict[str, Any]:
    """Keys w and h from the first image, for files that do not give the size."""
    if all("w" in frame and "h" in frame for _, frame in entries):
        return {}
    for name, _ in entries:
        try:
            file = _image_file(folder, name)
            height, width = decode_compressed(file.suffix, file.read_bytes()).shape[:2]
        except (RecordingError, OSError):
            continue
        return {"w": width, "h": height}
    return {}


def _shot(index: int, name: str, keys: Mapping[str, Any], folder: Path) -> Shot:
    image = _image_file(folder, name)
    depth_name = keys.get("depth_file_path") or keys.get("depth_path")
    rows = keys.get("transform_matrix")
    map_from_cam = None if rows is None else pose_from_rows(rows) @ _FROM_OPTICAL
    depth_file = folder / depth_name if isinstance(depth_name, str) else None
    return Shot(index * STAMP_STEP_NS, name, image, _camera(keys), map_from_cam, depth_file)


def _camera(keys: Mapping[str, Any]) -> Camera:
    width, height = int(_number(keys, "w", 0)), int(_number(keys, "h", 0))
    fx = _focal(keys, "fl_x", "camera_angle_x", width)
    if fx is None:
        raise CalibrationError("it has no intrinsics, expected fl_x or camera_angle_x")
    fy = _focal(keys, "fl_y", "camera_angle_y", height) or fx
    cx, cy = _number(keys, "cx", width / 2), _number(keys, "cy", height / 2)
    model = _MODELS["OPENCV_FISHEYE" if keys.get("is_fisheye") is True else "OPENCV"]
    if (given := keys.get("camera_model")) is not None:
        if given not in _MODELS:
            raise CalibrationError(f"its camera model {given!r} is not read, expected {', '.join(_MODELS)}")
        model = _MODELS[given]
    k1, k2, k3, k4, p1, p2 = (_number(keys, key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    distortion: tuple[float, ...] = (k1, k2, k3, k4) if model is DistortionModel.EQUIDISTANT else (k1, k2, p1, p2, k3)
    if model is not DistortionModel.EQUIDISTANT and k4:
        raise CalibrationError(f"its k4 is {k4}, which the model OPENCV has not; is it OPENCV_FISHEYE?")
    if not any(distortion):
        distortion = ()
    return Camera(width, height, fx, fy, cx - PIXEL_SHIFT, cy - PIXEL_SHIFT, model, distortion)


def _focal(keys: Mapping[str, Any], length: str, angle: str, side: int) -> float | None:
    """Pixels, from the length itself or the angle (rad) under which the camera sees a whole side; None without."""
    if length in keys:
        return _number(keys, length, 0.0)
    if angle not in keys:
        return None
    radians = _number(keys, angle, 0.0)
    if not 0 < radians < math.pi:
        raise CalibrationError(f"its {angle} is {radians}, expected radians between 0 and pi")
    return 0.5 * side / math.tan(0.5 * radians)


def _number(keys: Mapping[str, Any], key: str, default: float) -> float:
    value = keys.get(key, default)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise CalibrationError(f"its {key} is {value!r}, expected a number")


def _counts_per_metre(content: Mapping[str, Any], file: Path) -> float:
    for key in ("integer_depth_scale", "depth_unit_scale_factor"):
        if key in content:
            scale = _number(content, key, 0.0)
            if scale <= 0:
                raise RecordingError(f"{file} has the {key} {scale}, expected units per count, such as 0.001")
            return 1 / scale
    return 1000.0


def _roles(content: Mapping[str, Any]) -> dict[str, str]:
    listed = {key: content.get(key) for key in _ROLES}
    return {
        str(PurePosixPath(name)): _ROLES[key]
        for key, names in listed.items()
        if isinstance(names, list)
        for name in names
        if isinstance(name, str)
    }


def _remarks(content: Mapping[str, Any]) -> list[str]:
    keys = [key for key in ("applied_transform", "applied_scale", "aabb_scale", "scale") if key in content]
    if not keys:
        return []
    return [f"{FILE_NAME} has {', '.join(keys)}: its poses are taken as they are, in the frame it gives them"]
