"""Poses from images alone: structure from motion by COLMAP, with the calibration that is known.

pycolmap, an optional dependency, finds features, matches them and maps; here is what it may call a point and a pose,
and what is done about models that are bent: only what agrees with the matches is kept, and grown from there.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry import Pose
from nre_ros.mapping.sfm_agreement import Part, agreeing_parts
from nre_ros.mapping.sfm_links import SEED, Links, Progress, link_views, name_of
from nre_ros.mapping.sfm_views import LEAST_FEATURES, SfmView, quiet, require_pycolmap

LEAST_VIEWS = 3
"""Fewer views with poses are no reconstruction that could be trusted."""
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
MOST_ROUNDS = 8
"""Of growing a part; terrace and office need 3 to 5."""


@dataclass(frozen=True)
class Marks:
    """What places a view: ``matches`` of a link, ``inliers`` and their share among what a pose is found from. The first
    two views: the angle of their rays, and how far along its axis the camera may move (1: straight on)."""

    matches: int
    inliers: int
    share: float
    first_angle_deg: float = LEAST_FIRST_ANGLE_DEG
    first_forward: float = 0.95


MARKS = (Marks(22, 30, 0.25), Marks(15, 20, 0.1))
"""Strict and lax, both tried: terrace's parts are bent less often with the strict, office's gaps of a metre are bridged
by the lax only."""
STRAIGHT_ON = Marks(22, 30, 0.25, 2.0, 1.0)
"""Where these find nothing: a car that drives straight on has no other first views."""


@dataclass(frozen=True)
class SfmPoses:
    """``world_from_cam`` by the position of the view, in a frame and unit of its own; ``error_px`` is the mean
    reprojection error. ``depth_ratios`` (R,) float64: metres of measured depth per unit of the world, of every point
    of a view that has depth."""

    world_from_cam: dict[int, Pose]
    error_px: float
    depth_ratios: Tensor


@dataclass(frozen=True)
class _Model:
    """COLMAP's reconstruction, and what of it can be trusted."""

    reconstruction: Any
    part: Part


def reconstruct(views: list[SfmView], tell: Progress, most_parts: int = 1) -> list[SfmPoses]:
    """Poses of the views that hang together, the part that most matches agree with first; others have a world of
    their own. The same views give the same poses.

    Raises MapError when there are fewer than :data:`LEAST_VIEWS` in the first, with the likely cause.
    """
    pycolmap = require_pycolmap()
    _check_views(views)
    with quiet(pycolmap), tempfile.TemporaryDirectory(prefix="nre_ros_sfm_") as folder:
        database = Path(folder) / "matches.db"
        links = link_views(pycolmap, database, views, tell)
        if not links.matches:
            raise MapError(
                f"no two of {len(views)} frames show the same things: images must overlap, and the calibration "
                "must belong to them"
            )
        mapper = _Mapper(pycolmap, database, links, len(views), tell)
        models = mapper.parts(most_parts)
    if not models:
        raise MapError(
            f"structure from motion found no {LEAST_VIEWS} of {len(views)} frames whose poses explain their matches: "
            "the camera must move sideways, not only turn, and see texture in overlapping images"
        )
    return [_poses(model, views) for model in models]


def _check_views(views: list[SfmView]) -> None:
    textured = sum(len(view.features) >= LEAST_FEATURES for view in views)
    if len(views) < LEAST_VIEWS:
        raise MapError(
            f"structure from motion needs at least {LEAST_VIEWS} frames from different places, got {len(views)}: the "
            "camera must move"
        )
    if textured < LEAST_VIEWS:
        raise MapError(
            f"only {textured} of {len(views)} frames have {LEAST_FEATURES} features or more: the images have too "
            "little texture, or are too dark or blurred, for structure from motion"
        )


class _Mapper:
    """COLMAP's incremental mapper on one database of ``count`` views."""

    def __init__(self, pycolmap: Any, database: Path, links: Links, count: int, tell: Progress) -> None:
        self._pycolmap, self._database, self._links = pycolmap, database, links
        self._count, self._tell = count, tell
        self._furthest = 0

    def parts(self, most: int) -> list[_Model]:
        """One after the other, each of the views that the earlier ones leave."""
        found: list[_Model] = []
        left = set(range(self._count))
        self._tell("poses", 0, self._count)
        while len(found) < most and len(left) >= LEAST_VIEWS:
            model = self._grown(left)
            if model is None:
                break
            found.append(model)
            left -= model.part.views
        self._tell("poses", self._count, self._count)
        return found

    def _grown(self, left: set[int]) -> _Model | None:
        """The best model of these views: what contradicts it is taken out and the mapper goes on with the rest, as long
        as that brings more agreeing matches."""
        best = max((self._mapped(left, marks) for marks in MARKS), key=_support) or self._mapped(left, STRAIGHT_ON)
        for _ in range(MOST_ROUNDS):
            if best is None:
                break
            longer = max((self._mapped(left, marks, best) for marks in MARKS), key=_support)
            if longer is None or len(longer.part.views) <= len(best.part.views) or _support(longer) <= _support(best):
                break
            best = longer
        return best

    def _mapped(self, left: set[int], marks: Marks, start: _Model | None = None) -> _Model | None:
        """The best of the models that the mapper makes, without what contradicts it; None where nothing is left."""
        options = _options(self._pycolmap, marks)
        options.image_names = [name_of(view) for view in sorted(left)]
        placed = self._count - len(left) + (0 if start is None else len(start.part.views))

        def next_image() -> None:
            nonlocal placed
            placed += 1
            self._told(placed)

        with tempfile.TemporaryDirectory(dir=self._database.parent) as folder:
            more: dict[str, Any] = {}
            if start is not None:
                start.reconstruction.write(folder)
                options.multiple_models = False
                more["input_path"] = folder
            out = Path(folder) / "models"
            out.mkdir()
            models = self._pycolmap.incremental_mapping(
                self._database, folder, out, options, next_image_callback=next_image, **more
            )
        return max((self._trusted(model) for model in models.values()), key=_support, default=None)

    def _told(self, placed: int) -> None:
        """Progress never goes back, though the mapper starts more than once."""
        self._furthest = max(self._furthest, min(placed, self._count))
        self._tell("poses", self._furthest, self._count)

    def _trusted(self, reconstruction: Any) -> _Model | None:
        poses = _world_from_cam(reconstruction)
        parts = [part for part in agreeing_parts(self._links, poses) if len(part.views) >= LEAST_VIEWS]
        if not parts:
            return None
        for view in set(poses) - parts[0].views:
            reconstruction.deregister_frame(reconstruction.images[view + 1].frame_id)
        return _Model(reconstruction, parts[0])


def _support(model: _Model | None) -> float:
    return 0 if model is None else model.part.support


def _options(pycolmap: Any, marks: Marks) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = SEED
    options.num_threads = 1  # more add up in another order each time, and then poses differ from run to run
    options.min_model_size = LEAST_VIEWS
    options.extract_colors = False
    options.ba_refine_focal_length = False
    options.ba_refine_extra_params = False
    options.min_num_matches = marks.matches
    _fit_to_small_parallax(options)
    mapper = options.mapper
    mapper.abs_pose_refine_focal_length = False
    mapper.abs_pose_refine_extra_params = False
    mapper.abs_pose_min_num_inliers = marks.inliers
    mapper.abs_pose_min_inlier_ratio = marks.share
    mapper.init_min_tri_angle = marks.first_angle_deg
    mapper.init_max_forward_motion = marks.first_forward
    return options


def _fit_to_small_parallax(options: Any) -> None:
    mapper, triangulation = options.mapper, options.triangulation
    mapper.init_max_error = FIRST_ERROR_PX
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


def _poses(model: _Model, views: list[SfmView]) -> SfmPoses:
    reconstruction = model.reconstruction
    world_from_cam = _world_from_cam(reconstruction)
    ratios = [
        _depth_ratios(reconstruction, reconstruction.images[k + 1], pose, views[k].depth)
        for k, pose in world_from_cam.items()
    ]
    return SfmPoses(world_from_cam, float(reconstruction.compute_mean_reprojection_error()), torch.cat(ratios))


def _world_from_cam(reconstruction: Any) -> dict[int, Pose]:
    """Of the views that have a pose; image k + 1 is view k."""
    images = sorted(reconstruction.images.items())
    return {number - 1: _pose(image.cam_from_world()).inverse() for number, image in images if image.has_pose}


def _depth_ratios(reconstruction: Any, image: Any, world_from_cam: Pose, depth: Tensor) -> Tensor:
    """Measured by reconstructed depth (R,) of the features of one image that have both."""
    seen = [i for i in image.get_observation_point2D_idxs() if bool(torch.isfinite(depth[i]))]
    points = [reconstruction.point3D(image.point2D(i).point3D_id).xyz for i in seen]
    xyz_world = torch.from_numpy(np.array(points, np.float64).reshape(-1, 3))
    along = world_from_cam.inverse().transform(xyz_world)[:, 2]
    return depth[torch.tensor(seen, dtype=torch.long)] / along


def _pose(rigid: Any) -> Pose:
    matrix = torch.from_numpy(np.array(rigid.matrix(), np.float64))
    return Pose(matrix[:, :3].contiguous(), matrix[:, 3].contiguous())
