"""Frames without poses, as structure from motion takes them: which ones, their features, and which pairs to match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.errors import CalibrationError, MapError
from nre_ros.features import limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.keyframe_choice import is_new_view
from nre_ros.mapping.keypoints import Keypoints, detect
from nre_ros.mapping.measured_depth import depth_at
from nre_ros.mapping.retrieval import aggregate, learn_vocabulary
from nre_ros.recordings.frame import Frame

FEATURES_PER_POINT = 2
"""Most features of a view, as a multiple of the keypoints that a keyframe has: office's have 1400, terrace's 1700."""
POOLED_SCALES = 5
"""Half of COLMAP's 10, and half of the time."""
ALL_PAIRS = 150
"""Views of which every pair is matched; of more, those that follow each other and those that look alike."""
FOLLOWING = 20
ALIKE = 40
LEAST_FEATURES = 15
"""Images with fewer show nothing that could be matched."""
COLMAP_SHIFT = 0.5
"""COLMAP puts the centre of the top-left pixel at (0.5, 0.5), this package at (0, 0)."""


@dataclass(frozen=True)
class SfmFeatures:
    """COLMAP's covariant SIFT: ``shapes`` (N, 6) float32, its x, y and affine shape, ``descriptors`` (N, 128) uint8."""

    shapes: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def uv_px(self) -> np.ndarray:
        """(N, 2) float64."""
        return self.shapes[:, :2].astype(np.float64) - COLMAP_SHIFT


@dataclass(frozen=True)
class SfmView:
    """``index`` counts the frames given; ``depth`` (N,) float64 of the features along the optical axis, NaN where
    unknown; ``given`` is the frame's own map_from_cam, where it has one."""

    index: int
    name: str
    stamp_ns: int
    camera: Camera
    features: SfmFeatures
    depth: Tensor
    given: Pose | None


def require_pycolmap() -> Any:
    """The module. Raises MapError that says how to install it."""
    try:
        import pycolmap
    except ImportError as error:
        raise MapError(f"structure from motion needs pycolmap ({error}): pip install pycolmap") from None
    return pycolmap


@contextmanager
def quiet(pycolmap: Any) -> Iterator[None]:
    """COLMAP's log tells nothing that the errors here do not."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def choose_views(
    frames: Iterable[Frame], config: BuilderConfig, wanted: Callable[[Frame], bool] = lambda frame: False
) -> list[SfmView]:
    """The frames that a builder would make keyframes of, and those that are ``wanted``.

    Raises CalibrationError for an image that is not of its camera's size, MapError where pycolmap is missing.
    """
    extractor = _extractor(require_pycolmap(), FEATURES_PER_POINT * config.points_per_keyframe)
    views: list[SfmView] = []
    last: Keypoints | None = None
    for index, frame in enumerate(frames):
        height, width = frame.image_rgb.shape[:2]
        if (width, height) != (frame.camera.width, frame.camera.height):
            raise CalibrationError(
                f"frame {frame.name or index} is {width}x{height} pixels, its calibration says "
                f"{frame.camera.width}x{frame.camera.height}"
            )
        image, camera = limit_size(frame.image_rgb, frame.camera, config.max_image_side)
        keypoints = detect(image, config.points_per_keyframe)
        if not wanted(frame) and last is not None and not _is_new(views[-1].camera, last, camera, keypoints, config):
            continue
        features = _extract(extractor, image)
        depth = depth_at(frame.depth_m, features.uv_px, camera)
        views.append(SfmView(index, frame.name, frame.stamp_ns, camera, features, depth, frame.map_from_cam))
        last = keypoints
    return views


def _is_new(last_camera: Camera, last: Keypoints, camera: Camera, keypoints: Keypoints, config: BuilderConfig) -> bool:
    return last_camera != camera or is_new_view(last, keypoints, camera.width, config)


def _extractor(pycolmap: Any, most: int) -> Any:
    """Affine shapes and descriptors pooled over scales: across office's gaps of a metre they link all 127 frames by 22
    matches or more, where plain SIFT leaves parts of 79, 40 and 8."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = 1
    options.sift.max_num_features = most
    options.sift.estimate_affine_shape = True
    options.sift.domain_size_pooling = True
    options.sift.dsp_num_scales = POOLED_SCALES
    with quiet(pycolmap):
        return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)


def _extract(extractor: Any, image_rgb: np.ndarray) -> SfmFeatures:
    found, descriptors = extractor.extract_from_uint8_array(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY))
    shapes = [(p.x, p.y, p.a11, p.a12, p.a21, p.a22) for p in found]
    return SfmFeatures(np.array(shapes, np.float32).reshape(-1, 6), np.array(descriptors.data))


def pairs_to_match(views: list[SfmView]) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of views that may show the same things."""
    usable = [i for i, view in enumerate(views) if len(view.features) >= LEAST_FEATURES]
    if len(usable) <= ALL_PAIRS:
        return [(i, j) for n, i in enumerate(usable) for j in usable[n + 1 :]]
    pairs = {(i, j) for n, i in enumerate(usable) for j in usable[n + 1 : n + 1 + FOLLOWING]}
    for n, row in enumerate(_similarity([views[i].features for i in usable])):
        row[n] = -1
        for other in row.topk(min(ALIKE, len(usable) - 1)).indices.tolist():
            pairs.add((usable[min(n, other)], usable[max(n, other)]))
    return sorted(pairs)


def _similarity(features: list[SfmFeatures]) -> Tensor:
    """(N, N) of global descriptors made of the SIFT descriptors, as the map makes them of the network's."""
    columns = [_unit(mine.descriptors).T[:, None] for mine in features]
    vocabulary = learn_vocabulary(columns, len(columns))
    descriptors = torch.stack([aggregate(column, vocabulary) for column in columns])
    return descriptors @ descriptors.T


def _unit(descriptors: np.ndarray) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(descriptors.astype(np.float32)), dim=1)
