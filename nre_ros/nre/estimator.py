"""From landmarks and their loss maps to a pose: MSAC, GNC on the coarse maps, GNC in fine windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, Pose
from nre_ros.nre.covariance import pose_covariance
from nre_ros.nre.fine import MIN_POINTS, FineStage, refine_fine
from nre_ros.nre.gnc import join_poses, linearise, point_gains, refine, sigma_levels
from nre_ros.nre.loss_maps import LossMaps, find_peaks
from nre_ros.nre.msac import distinct, find_poses

FIRST_LEVEL_POINTS = 300
"""About so many points take part in the first, smoothest level, which only sorts the hypotheses."""
HOPELESS = 0.6
"""A second hypothesis with less than this share of the first one's gain is not refined further."""


class Outcome(Enum):
    OK = "ok"
    TOO_FEW_POINTS = "too few points"
    NO_HYPOTHESIS = "no three points gave a pose"


@dataclass(frozen=True)
class Estimate:
    """What the loss maps say of the camera's pose.

    ``poses`` ``cam_from_map`` (H,), best first: the first refined on the fine maps, the others on the coarse ones.
    ``gains`` (H,) their summed coarse gains (Eq. 6 turned over: higher is better, at most N * ceiling).
    ``covariance`` (6, 6), rotation first, of the twist x in ``exp(x) @ poses[0]``; None if the points do not fix it.
    ``coarse_share`` (N,) each point's coarse gain at the first pose over the ceiling; ``fine_share`` the same of the
    fine maps, zero for points without a window. ``in_view`` (N,) the points whose projection lies on the image.
    """

    outcome: Outcome
    poses: Pose | None = None
    gains: Tensor | None = None
    covariance: Tensor | None = None
    coarse_share: Tensor | None = None
    fine_share: Tensor | None = None
    in_view: Tensor | None = None


def estimate_pose(
    xyz_map: Tensor,
    camera: Camera,
    coarse: LossMaps,
    fine: FineStage | None,
    config: NreConfig,
    done: Callable[[str], None] = lambda stage: None,
) -> Estimate:
    """Find the pose that minimises the NRE (Eq. 6) of landmarks ``xyz_map`` (N, 3) under their ``coarse`` maps.

    ``fine`` gives the last stage its windows; without it the coarse pose is final. ``done`` is told the name of each
    stage as it ends.
    """
    if len(xyz_map) < MIN_POINTS:
        return Estimate(Outcome.TOO_FEW_POINTS)
    xyz_map = xyz_map.double()
    found = find_poses(coarse, find_peaks(coarse), xyz_map, camera, config)
    done("msac")
    if found is None:
        return Estimate(Outcome.NO_HYPOTHESIS)

    poses = _refine_coarse(coarse, xyz_map, camera, found[0], config)
    done("gnc_coarse")

    best, maps, index, sigma = poses[:1], coarse, torch.arange(len(xyz_map)), config.coarse_sigma_min
    fine_share = torch.zeros(len(xyz_map), device=xyz_map.device)
    if fine is not None:
        refined = refine_fine(coarse, xyz_map, camera, best, fine, config)
        if refined is not None:
            best, maps, index, sigma = *refined, config.fine_sigma_min
            fine_share[index] = point_gains(maps, xyz_map[index], camera, best)[0] / maps.ceiling
    covariance = pose_covariance(linearise(maps, xyz_map[index], camera, best, sigma, min_curvature=None))
    done("gnc_fine")

    poses = join_poses(best, poses[1:])
    gains = point_gains(coarse, xyz_map, camera, poses)
    total = gains.sum(1, dtype=torch.float64)
    uv_px, visible = camera.project(best.transform(xyz_map))
    in_view = visible[0] & camera.contains(uv_px[0])
    return Estimate(Outcome.OK, poses, total, covariance, gains[0] / coarse.ceiling, fine_share, in_view)


def _refine_coarse(coarse: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, config: NreConfig) -> Pose:
    """All hypotheses through the first level on a share of the points, the best two through the others on all.

    Best first by the last level's cost; poses that met on the way are one.
    """
    sigmas = sigma_levels(config.coarse_sigma_max, config.coarse_sigma_min)
    few = torch.arange(0, len(xyz_map), 1 + len(xyz_map) // FIRST_LEVEL_POINTS, device=xyz_map.device)
    sparse = coarse.select(few)

    def ranked(poses: Pose, gains: Tensor) -> tuple[Pose, Tensor]:
        kept = distinct(poses, gains, coarse, xyz_map[few], camera, 2)
        return poses[kept], gains[kept]

    poses, gains = ranked(*refine(sparse, xyz_map[few], camera, poses, sigmas[:1]))
    hopeful = 2 if len(gains) > 1 and gains[1] > HOPELESS * gains[0] else 1
    refined, gains = refine(coarse, xyz_map, camera, poses[:hopeful], sigmas[1:] or sigmas)
    return join_poses(ranked(refined, gains)[0], poses[hopeful:])
