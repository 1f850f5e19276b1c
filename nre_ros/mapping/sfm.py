"""Poses from images alone: structure from motion by COLMAP's incremental mapper, with the calibration that is known.

Keypoints and matches are those that landmarks are made of; COLMAP verifies them and finds the poses. pycolmap is an
optional dependency.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.mapping.keypoints import match
from nre_ros.mapping.sfm_views import LEAST_KEYPOINTS, SfmView, pairs_to_match

LEAST_VIEWS = 3
"""Fewer views with poses are no reconstruction that could be trusted."""
LEAST_INLIERS = 22
"""Matches of one geometry that link two views. Of terrace's links with COLMAP's least of 15 to 19, 7 of 12 were wrong
by the known poses, of those with 20 or more none of 135; a wrong one bends the whole."""
LEAST_ANGLE_DEG = 0.5
"""Between the rays of a point. COLMAP's 1.5 leaves out most of what links neighbouring views: of terrace's links with
50 matches or more the median parallax is 4 to 6 px, 0.6 to 0.8 deg, at a median epipolar error of 0.2 px."""
LEAST_FIRST_ANGLE_DEG = 4.0
LEAST_LOCAL_ANGLE_DEG = 2.0
POINT_ERROR_PX = 1.2
"""COLMAP's marks of 4 (a point) and 12 px (a pose) are of images several times as large, and as large as the parallax
here: with them wrong depths pass and the whole is bent."""
FIRST_ERROR_PX = 1.0
POSE_ERROR_PX = 2.5
RAY_ERROR_DEG = 0.3
RETRIED_RAY_ERROR_DEG = 0.6
SEED = 0
COLMAP_SHIFT = 0.5
"""COLMAP puts the centre of the top-left pixel at (0.5, 0.5), this package at (0, 0)."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SfmPoses:
    """``world_from_cam`` by the position of the view, in a frame and unit of its own. ``others`` are the sizes of
    further models that could not be joined to this one, ``error_px`` its mean reprojection error. ``depth_ratios`` (R,)
    float64: metres of measured depth per unit of the world, of every point of a view that has depth."""

    world_from_cam: dict[int, Pose]
    others: list[int]
    error_px: float
    depth_ratios: Tensor


def require_pycolmap() -> Any:
    """The module. Raises MapError that says how to install it."""
    try:
        import pycolmap
    except ImportError as error:
        raise MapError(f"structure from motion needs pycolmap ({error}): pip install pycolmap") from None
    return pycolmap


def reconstruct(views: list[SfmView], tell: Progress) -> SfmPoses:
    """Poses of as many views as hang together. The same views give the same poses.

    Raises MapError when they are fewer than :data:`LEAST_VIEWS`, with the likely cause.
    """
    pycolmap = require_pycolmap()
    _check_views(views)
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        with tempfile.TemporaryDirectory(prefix="nre_ros_sfm_") as folder:
            database = Path(folder) / "matches.db"
            linked = _write_matches(pycolmap, database, views, tell)
            if not linked:
                raise MapError(
                    f"no two of {len(views)} frames show the same things: images must overlap, and the calibration "
                    "must belong to them"
                )
            models = _map_incrementally(pycolmap, database, Path(folder), len(views), tell)
    finally:
        pycolmap.logging.minloglevel = level
    ranked = sorted(models, key=lambda model: -model.num_reg_images())
    if not ranked or ranked[0].num_reg_images() < LEAST_VIEWS:
        count = ranked[0].num_reg_images() if ranked else 0
        raise MapError(
            f"structure from motion found the poses of {count} of {len(views)} frames, expected at least "
            f"{LEAST_VIEWS}: the camera must move sideways, not only turn, and see texture in overlapping images"
        )
    model = ranked[0]
    placed = {number - 1: image for number, image in sorted(model.images.items()) if image.has_pose}
    ratios = [_depth_ratios(model, image, views[k].depth) for k, image in placed.items()]
    return SfmPoses(
        {k: _pose(image.cam_from_world()).inverse() for k, image in placed.items()},
        [other.num_reg_images() for other in ranked[1:]],
        float(model.compute_mean_reprojection_error()),
        torch.cat(ratios),
    )


def _check_views(views: list[SfmView]) -> None:
    textured = sum(len(view.keypoints) >= LEAST_KEYPOINTS for view in views)
    if len(views) < LEAST_VIEWS:
        raise MapError(
            f"structure from motion needs at least {LEAST_VIEWS} frames from different places, got {len(views)}: the "
            "camera must move"
        )
    if textured < LEAST_VIEWS:
        raise MapError(
            f"only {textured} of {len(views)} frames have {LEAST_KEYPOINTS} keypoints or more: the images have too "
            "little texture, or are too dark or blurred, for structure from motion"
        )


def _write_matches(pycolmap: Any, database: Path, views: list[SfmView], tell: Progress) -> int:
    """Fill a COLMAP database; returns how many pairs of views one geometry links. Image k + 1 is view k."""
    cameras = {camera: colmap_camera(pycolmap, camera) for camera in dict.fromkeys(view.camera for view in views)}
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = SEED
    options.min_num_inliers = LEAST_INLIERS
    with pycolmap.Database.open(database) as stored:
        for camera in cameras.values():
            camera.camera_id = stored.write_camera(camera)
        for k, view in enumerate(views):
            _write_image(pycolmap, stored, k + 1, cameras[view.camera].camera_id, view)
        pairs, linked = pairs_to_match(views), 0
        tell("matching", 0, len(pairs))
        for done, (i, j) in enumerate(pairs):
            matched, _ = match(views[i].keypoints, views[j].keypoints)
            if len(matched) >= options.min_num_inliers:
                geometry = pycolmap.estimate_calibrated_two_view_geometry(
                    cameras[views[i].camera],
                    views[i].keypoints.uv_px + COLMAP_SHIFT,
                    cameras[views[j].camera],
                    views[j].keypoints.uv_px + COLMAP_SHIFT,
                    matched.astype(np.uint32),
                    options,
                )
                if len(geometry.inlier_matches) >= options.min_num_inliers:
                    stored.write_two_view_geometry(i + 1, j + 1, geometry)
                    linked += 1
            tell("matching", done + 1, len(pairs))
    return linked


def _write_image(pycolmap: Any, stored: Any, number: int, camera_id: int, view: SfmView) -> None:
    """One image, in a rig and frame of its own, as COLMAP has it since 4.0."""
    image = pycolmap.Image(name=f"{number:06d}", camera_id=camera_id, image_id=number)
    stored.write_image(image, use_image_id=True)
    stored.write_keypoints(number, (view.keypoints.uv_px + COLMAP_SHIFT).astype(np.float32))


def _map_incrementally(pycolmap: Any, database: Path, folder: Path, count: int, tell: Progress) -> list[Any]:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = SEED
    options.num_threads = 1  # more add up in another order each time, and then poses differ from run to run
    options.min_model_size = LEAST_VIEWS
    options.extract_colors = False
    _fit_to_small_parallax(options)
    options.ba_refine_focal_length = False
    options.ba_refine_extra_params = False
    options.mapper.abs_pose_refine_focal_length = False
    options.mapper.abs_pose_refine_extra_params = False
    placed = 0

    def next_image() -> None:
        nonlocal placed
        placed = min(placed + 1, count)
        tell("poses", placed, count)

    tell("poses", 0, count)
    out = folder / "models"
    out.mkdir()
    models = pycolmap.incremental_mapping(database, folder, out, options, next_image_callback=next_image)
    return list(models.values())


def _fit_to_small_parallax(options: Any) -> None:
    mapper, triangulation = options.mapper, options.triangulation
    mapper.init_max_error = FIRST_ERROR_PX
    mapper.init_min_tri_angle = LEAST_FIRST_ANGLE_DEG
    mapper.abs_pose_max_error = POSE_ERROR_PX
    mapper.ba_local_min_tri_angle = LEAST_LOCAL_ANGLE_DEG
    mapper.filter_min_tri_angle = LEAST_ANGLE_DEG
    mapper.filter_max_reproj_error = POINT_ERROR_PX
    triangulation.ignore_two_view_tracks = False  # where views are far apart, most tracks have no third view
    triangulation.min_angle = LEAST_ANGLE_DEG
    triangulation.create_max_angle_error = RAY_ERROR_DEG
    triangulation.continue_max_angle_error = RAY_ERROR_DEG
    triangulation.re_max_angle_error = RETRIED_RAY_ERROR_DEG
    triangulation.merge_max_reproj_error = POINT_ERROR_PX
    triangulation.complete_max_reproj_error = POINT_ERROR_PX


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


def _depth_ratios(model: Any, image: Any, depth: Tensor) -> Tensor:
    """Measured by reconstructed depth (R,) of the keypoints of one image that have both."""
    seen = [i for i in image.get_observation_point2D_idxs() if bool(torch.isfinite(depth[i]))]
    points = [model.point3D(image.point2D(i).point3D_id).xyz for i in seen]
    xyz_world = torch.from_numpy(np.array(points, np.float64).reshape(-1, 3))
    along = _pose(image.cam_from_world()).transform(xyz_world)[:, 2]
    return depth[torch.tensor(seen, dtype=torch.long)] / along


def _pose(rigid: Any) -> Pose:
    matrix = torch.from_numpy(np.array(rigid.matrix(), np.float64))
    return Pose(matrix[:, :3].contiguous(), matrix[:, 3].contiguous())
