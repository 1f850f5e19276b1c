"""Cameras from and to sensor_msgs/CameraInfo and ROS's calibration files (camera.yaml).

Works on attributes alone, so that messages of rclpy and of rosbags serve alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nre_ros.errors import CalibrationError
from nre_ros.geometry import Camera, DistortionModel

_MODELS = {model.value: model for model in DistortionModel} | {"fisheye": DistortionModel.EQUIDISTANT}


def camera_from_info(info: Any) -> Camera:
    """The camera of the image that comes with a sensor_msgs/CameraInfo, with its region of interest and binning.

    ``width`` and ``height`` of the message are the full sensor's; the region is cut out first, in sensor pixels, then
    blocks of binning_x by binning_y pixels become one (0 means 1). The centre of such a block lies between pixels,
    hence half a pixel of difference to image_geometry, which scales cx and cy alone.

    Raises CalibrationError for an uncalibrated camera (k all zeros), unknown distortion models and impossible numbers.
    """
    camera = _camera(int(info.width), int(info.height), info.distortion_model, info.d, info.k, "camera_info")
    return _binned(_cut_out(camera, info.roi), max(1, int(info.binning_x)), max(1, int(info.binning_y)))


def info_fields(camera: Camera) -> dict[str, Any]:
    """The numbers of a CameraInfo by field name: width, height, distortion_model, d, k, r, p (lists of float)."""
    fx, fy, cx, cy = float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy)
    return {
        "width": camera.width,
        "height": camera.height,
        "distortion_model": camera.model.value,
        "d": camera.coefficients().tolist(),
        "k": [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        "r": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        "p": [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    }


def check_size(camera: Camera, image: np.ndarray) -> None:
    """Raises CalibrationError when the image (H, W, ...) is not of the size that the camera was calibrated for."""
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise CalibrationError(
            f"image is {width}x{height}, but its calibration is for {camera.width}x{camera.height}; "
            "give the calibration of this image size"
        )


def camera_from_yaml(path: str | Path) -> Camera:
    """From a calibration file as camera_calibration writes it; raises CalibrationError."""
    return camera_from_mapping(read_calibration(path), str(path))


def read_calibration(path: str | Path) -> dict[str, Any]:
    """All keys of a calibration file; raises CalibrationError when it is missing or no YAML mapping."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CalibrationError(f"{path} does not exist; put the camera's ROS calibration file there") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CalibrationError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CalibrationError(f"{path} holds no keys, expected image_width, image_height, camera_matrix and others")
    return content


def camera_from_mapping(content: Mapping[str, Any], where: str) -> Camera:
    """The camera that the keys of a calibration file describe; ``where`` stands in the errors."""
    try:
        width, height = int(content["image_width"]), int(content["image_height"])
        k = [float(v) for v in content["camera_matrix"]["data"]]
        d = [float(v) for v in content.get("distortion_coefficients", {}).get("data", [])]
    except KeyError as error:
        raise CalibrationError(f"{where} lacks the key {error}; expected a file of camera_calibration") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CalibrationError(f"{where} has a value of the wrong type: {error}") from None
    return _camera(width, height, str(content.get("distortion_model") or ""), d, k, where)


def camera_to_yaml(camera: Camera, path: str | Path, name: str = "camera") -> None:
    """Write the camera as a calibration file that camera_info_manager reads."""
    fields = info_fields(camera)
    content = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": name,
        "camera_matrix": {"rows": 3, "cols": 3, "data": fields["k"]},
        "distortion_model": fields["distortion_model"],
        "distortion_coefficients": {"rows": 1, "cols": len(fields["d"]), "data": fields["d"]},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": fields["r"]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": fields["p"]},
    }
    Path(path).write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None), encoding="utf-8")


def _camera(width: int, height: int, model: str, d: Sequence[float], k: Sequence[float], where: str) -> Camera:
    if len(k) != 9:
        raise CalibrationError(f"{where} has a camera matrix of {len(k)} numbers, expected 9")
    if not any(k):
        raise CalibrationError(
            f"{where} has a camera matrix of zeros: the camera is not calibrated; calibrate it first"
        )
    coefficients = tuple(float(v) for v in d)
    if not any(coefficients):
        coefficients = ()
    if model not in _MODELS and (model or coefficients):
        raise CalibrationError(
            f"{where} has the distortion model {model!r}, expected {', '.join(_MODELS)}, or none without coefficients"
        )
    return Camera(
        width=width,
        height=height,
        fx=float(k[0]),
        fy=float(k[4]),
        cx=float(k[2]),
        cy=float(k[5]),
        model=_MODELS.get(model, DistortionModel.PLUMB_BOB),
        distortion=coefficients,
    )


def _cut_out(camera: Camera, roi: Any) -> Camera:
    """The camera of a region (sensor pixels); width and height 0 mean the full sensor."""
    x, y, width, height = (int(v) for v in (roi.x_offset, roi.y_offset, roi.width, roi.height))
    if width == 0 and height == 0:
        width, height = camera.width - x, camera.height - y
    if width <= 0 or height <= 0 or x + width > camera.width or y + height > camera.height:
        raise CalibrationError(
            f"camera_info has the region of interest {width}x{height} at ({x}, {y}), "
            f"expected one within the sensor's {camera.width}x{camera.height}"
        )
    return replace(camera, width=width, height=height, cx=camera.cx - x, cy=camera.cy - y)


def _binned(camera: Camera, nx: int, ny: int) -> Camera:
    if nx == ny == 1:
        return camera
    return replace(
        camera,
        width=camera.width // nx,
        height=camera.height // ny,
        fx=camera.fx / nx,
        fy=camera.fy / ny,
        cx=(camera.cx + 0.5) / nx - 0.5,
        cy=(camera.cy + 0.5) / ny - 0.5,
    )
