"""Better poses for keyframes, from the landmarks that they share; kept only where other landmarks agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose import pose_error
from nre_ros.mapping.bundle import Observations, PosePrior, adjust
from nre_ros.mapping.triangulation import triangulate

JUDGES = 5
"""Every so manieth landmark is kept from the adjustment, to judge it."""
PER_VIEW = 400
"""Observations of a keyframe after which landmarks are no more needed for it; those seen most often go first."""
LEAST_JUDGES = 30
SCALE_PX = 1.0
"""Errors beyond this count ever less (Cauchy)."""


@dataclass(frozen=True)
class Refinement:
    """``map_from_cam`` (K) refined, or as given where that is not ``better``. Errors are medians over the observations
    of landmarks that had no part in it; ``distance`` (K,) in the map's unit and ``angle_deg`` (K,) that poses moved."""

    map_from_cam: Pose
    better: bool
    before_px: float
    after_px: float
    judged: int
    distance: Tensor
    angle_deg: Tensor

    def told(self, unit: str) -> str:
        """What became of the poses, in a sentence."""
        errors = f"median reprojection error of {self.judged} observations kept from it"
        if not self.better:
            return (
                f"the poses stay as given: refining them would not lower the {errors} "
                f"({self.before_px:.3f} to {self.after_px:.3f} px)"
            )
        name = "m" if unit == "metre" else "map units"
        return (
            f"poses refined: {errors} {self.before_px:.3f} to {self.after_px:.3f} px; keyframes moved by "
            f"{float(self.distance.median()):.3g} {name} and {float(self.angle_deg.median()):.3f} deg (median), at "
            f"most {float(self.distance.max()):.3g} {name} and {float(self.angle_deg.max()):.3f} deg"
        )


def refine_poses(
    map_from_cam: Pose,
    cameras: Sequence[Camera],
    xyz_map: Tensor,
    seen: Observations,
    config: BuilderConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Refinement:
    """Adjust poses (K) and part of the landmarks (L, 3), with the given poses as prior.

    The prior's deviations are ``config.pose_sigma_deg`` and ``config.pose_sigma_position`` of the median depth.
    """
    judge = torch.arange(len(xyz_map)) % JUDGES == 0
    used = _well_seen(seen, len(map_from_cam.translation), len(xyz_map), ~judge)
    xyz_cam = map_from_cam.inverse()[seen.view].transform(xyz_map[seen.point][:, None])[:, 0]
    prior = PosePrior(
        map_from_cam,
        float(torch.deg2rad(torch.tensor(config.pose_sigma_deg))),
        config.pose_sigma_position * float(xyz_cam[:, 2].median()),
    )
    number = torch.cumsum(used, 0) - 1
    mine = seen[used[seen.point]]
    renamed = Observations(mine.view, number[mine.point], mine.uv_px)
    refined, _ = adjust(prior, cameras, xyz_map[used], renamed, SCALE_PX, progress)
    judges = seen[(judge & ~used)[seen.point]]
    before, after = (_errors_px(pose, cameras, judges, len(xyz_map), config) for pose in (map_from_cam, refined))
    both = torch.isfinite(before) & torch.isfinite(after)
    judged = int(both.sum())
    before_px, after_px = (float(errors[both].median()) if judged else torch.nan for errors in (before, after))
    better = judged >= LEAST_JUDGES and after_px < before_px
    angle, distance = pose_error(refined, map_from_cam)
    kept = refined if better else map_from_cam
    return Refinement(kept, better, before_px, after_px, judged, distance, angle)


def _well_seen(seen: Observations, views: int, points: int, allowed: Tensor) -> Tensor:
    """Mask (N,) of points: those seen most often, until each view has :data:`PER_VIEW` observations of them."""
    length = torch.bincount(seen.point, minlength=points)
    by_point = torch.argsort(seen.point, stable=True)
    of_point = torch.split(seen.view[by_point], length.tolist())
    taken = torch.zeros(views, dtype=torch.int64)
    used = torch.zeros(points, dtype=torch.bool)
    for point in torch.argsort(length, descending=True, stable=True).tolist():
        mine = of_point[point]
        if allowed[point] and len(mine) > 1 and bool((taken[mine] < PER_VIEW).any()):
            used[point] = True
            taken[mine] += 1
    return used


def _errors_px(
    map_from_cam: Pose, cameras: Sequence[Camera], seen: Observations, points: int, config: BuilderConfig
) -> Tensor:
    """Distance (O,) of each observation from its landmark, triangulated under these poses; NaN where it has none."""
    origin, rays = map_from_cam.translation[seen.view], torch.zeros(len(seen.view), 3, dtype=torch.float64)
    for i, camera in enumerate(cameras):
        mine = seen.view == i
        rays[mine] = camera.unproject(seen.uv_px[mine]) @ map_from_cam.rotation[i].T
    focal_px = torch.tensor([(camera.fx + camera.fy) / 2 for camera in cameras], dtype=torch.float64)[seen.view]
    xyz = triangulate(seen.point, origin, rays, points, focal_px, config.max_reprojection_px)
    cam_from_map = map_from_cam.inverse()
    error = torch.full((len(seen.view),), torch.nan, dtype=torch.float64)
    for i, camera in enumerate(cameras):
        mine = seen.view == i
        uv_px, visible = camera.project(cam_from_map[i].transform(xyz[seen.point[mine]]))
        error[mine] = torch.where(visible, (uv_px - seen.uv_px[mine]).norm(dim=-1), torch.nan)
    return error
