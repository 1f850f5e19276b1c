"""COLMAP's camera models in this package's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nre_ros.errors import CalibrationError
from nre_ros.geometry import Camera, DistortionModel

PIXEL_SHIFT = 0.5
"""COLMAP puts the centre of the top-left pixel at (0.5, 0.5), this package at (0, 0)."""


@dataclass(frozen=True)
class ColmapCameraModel:
    """``focal_lengths`` (0 to 2) come first among the ``parameters``, then the centre, then the distortion.

    ``distortion`` is None for models that ROS has no name for.
    """

    name: str
    parameters: int
    focal_lengths: int
    distortion: DistortionModel | None


_BOB, _RATIONAL, _EQUIDISTANT = DistortionModel.PLUMB_BOB, DistortionModel.RATIONAL, DistortionModel.EQUIDISTANT

MODELS = {
    0: ColmapCameraModel("SIMPLE_PINHOLE", 3, 1, _BOB),
    1: ColmapCameraModel("PINHOLE", 4, 2, _BOB),
    2: ColmapCameraModel("SIMPLE_RADIAL", 4, 1, _BOB),
    3: ColmapCameraModel("RADIAL", 5, 1, _BOB),
    4: ColmapCameraModel("OPENCV", 8, 2, _BOB),
    5: ColmapCameraModel("OPENCV_FISHEYE", 8, 2, _EQUIDISTANT),
    6: ColmapCameraModel("FULL_OPENCV", 12, 2, _RATIONAL),
    7: ColmapCameraModel("FOV", 5, 2, None),
    8: ColmapCameraModel("SIMPLE_RADIAL_FISHEYE", 4, 1, _EQUIDISTANT),
    9: ColmapCameraModel("RADIAL_FISHEYE", 5, 1, _EQUIDISTANT),
    10: ColmapCameraModel("THIN_PRISM_FISHEYE", 12, 2, None),
    11: ColmapCameraModel("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2, None),
    12: ColmapCameraModel("SIMPLE_DIVISION", 4, 1, None),
    13: ColmapCameraModel("DIVISION", 5, 2, None),
    14: ColmapCameraModel("SIMPLE_FISHEYE", 3, 1, _EQUIDISTANT),
    15: ColmapCameraModel("FISHEYE", 4, 2, _EQUIDISTANT),
    16: ColmapCameraModel("EUCM", 6, 2, None),
    17: ColmapCameraModel("EQUIRECTANGULAR", 2, 0, None),
}
"""By COLMAP's number."""

KNOWN = ", ".join(model.name for model in MODELS.values() if model.distortion is not None)


def model_number(name: str) -> int:
    """Raises ValueError for a name that COLMAP does not have."""
    for number, model in MODELS.items():
        if model.name == name:
            return number
    raise ValueError(f"camera model {name!r} is unknown, expected one of {KNOWN}")


def camera_of(model: int, width: int, height: int, values: Sequence[float]) -> Camera | str:
    """The camera, its centre in this package's pixels, or the name of a model that ROS has no name for.

    Raises ValueError for another number of values and for values that no camera can have.
    """
    kind = MODELS[model]
    if len(values) != kind.parameters:
        raise ValueError(f"{kind.name} camera has {len(values)} parameters, expected {kind.parameters}")
    if kind.distortion is None:
        return kind.name
    fx, fy = values[0], values[kind.focal_lengths - 1]
    cx, cy, *distortion = values[kind.focal_lengths :]
    try:
        return Camera(width, height, fx, fy, cx - PIXEL_SHIFT, cy - PIXEL_SHIFT, kind.distortion, tuple(distortion))
    except CalibrationError as error:
        raise ValueError(str(error)) from error
