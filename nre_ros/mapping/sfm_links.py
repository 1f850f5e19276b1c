"""Which views of a structure from motion see the same things: COLMAP's matching, with the calibration that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nre_ros.geometry import Camera, DistortionModel
from nre_ros.mapping.sfm_views import COLMAP_SHIFT, SfmView, pairs_to_match

LEAST_INLIERS = 15
"""Matches of one geometry that link two views."""
EPIPOLAR_PX = 3.0
PAIRS_AT_ONCE = 1000
SEED = 0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Links:
    """``rays`` (N, 3) float64 of unit length of each view's features, ``focal_px`` of each, and ``matches`` (M, 2) of
    the views i < j that one geometry links, by (i, j)."""

    rays: list[np.ndarray]
    focal_px: list[float]
    matches: dict[tuple[int, int], np.ndarray]


def link_views(pycolmap: Any, database: Path, views: list[SfmView], tell: Progress) -> Links:
    """Fill a COLMAP database with features and verified matches. Image k + 1 is view k."""
    pairs = pairs_to_match(views)
    cameras = {camera: colmap_camera(pycolmap, camera) for camera in dict.fromkeys(view.camera for view in views)}
    with pycolmap.Database.open(database) as stored:
        for camera in cameras.values():
            camera.camera_id = stored.write_camera(camera)
        for k, view in enumerate(views):
            _write_view(pycolmap, stored, k + 1, cameras[view.camera].camera_id, view)
    tell("matching", 0, len(pairs))
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[start : start + PAIRS_AT_ONCE]
        _match(pycolmap, database, some)
        tell("matching", start + len(some), len(pairs))
    return _read_links(pycolmap, database, views)


def _write_view(pycolmap: Any, stored: Any, number: int, camera_id: int, view: SfmView) -> None:
    image = pycolmap.Image(name=name_of(number - 1), camera_id=camera_id, image_id=number)
    stored.write_image(image, use_image_id=True)
    stored.write_keypoints(number, view.features.shapes)
    sift = pycolmap.FeatureExtractorType.SIFT
    stored.write_descriptors(number, pycolmap.FeatureDescriptors(type=sift, data=view.features.descriptors))


def name_of(view: int) -> str:
    """Of the image of a view, by its position."""
    return f"{view:06d}"


def _match(pycolmap: Any, database: Path, pairs: list[tuple[int, int]]) -> None:
    """Match and verify in the database, on one thread."""
    file = database.with_suffix(".txt")
    file.write_text("".join(f"{name_of(i)} {name_of(j)}\n" for i, j in pairs), "utf-8")
    matching, pairing = pycolmap.FeatureMatchingOptions(), pycolmap.ImportedPairingOptions()
    matching.num_threads = 1
    matching.use_gpu = False
    pairing.match_list_path = file
    verification = pycolmap.TwoViewGeometryOptions()
    verification.min_num_inliers = LEAST_INLIERS
    verification.min_E_F_inlier_ratio = 0.0  # the calibration is known: never a fundamental matrix
    verification.detect_watermark = False
    verification.ransac.max_error = EPIPOLAR_PX
    verification.ransac.random_seed = SEED
    pycolmap.match_image_pairs(database, matching, pairing, verification, pycolmap.Device.cpu)


def _read_links(pycolmap: Any, database: Path, views: list[SfmView]) -> Links:
    matches = {}
    with pycolmap.Database.open(database) as stored:
        numbers, geometries = stored.read_two_view_geometries()
    for number, geometry in zip(numbers, geometries, strict=True):
        found = np.array(geometry.inlier_matches, np.int64).reshape(-1, 2)
        if len(found) >= LEAST_INLIERS:
            i, j = pycolmap.pair_id_to_image_pair(number)
            matches[i - 1, j - 1] = found
    rays = [view.camera.unproject(torch.from_numpy(view.features.uv_px)).numpy() for view in views]
    return Links(rays, [(view.camera.fx + view.camera.fy) / 2 for view in views], matches)


def colmap_camera(pycolmap: Any, camera: Camera) -> Any:
    """The same camera by COLMAP's names; its distortion is the same polynomials."""
    centre = [camera.cx + COLMAP_SHIFT, camera.cy + COLMAP_SHIFT]
    d = camera.coefficients().tolist()
    if camera.model is DistortionModel.EQUIDISTANT:
        model, distortion = "OPENCV_FISHEYE", d
    elif not camera.has_distortion:
        model, distortion = "PINHOLE", []
    else:
        model, distortion = "FULL_OPENCV", [*d, *[0.0] * (8 - len(d))]
    return pycolmap.Camera(
        model=model,
        width=camera.width,
        height=camera.height,
        params=[camera.fx, camera.fy, *centre, *distortion],
        has_prior_focal_length=True,
    )
