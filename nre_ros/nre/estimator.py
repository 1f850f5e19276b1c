"""From landmarks and their loss maps to a pose: MSAC, GNC on the coarse maps, GNC in fine windows."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.nre.covariance import pose_covariance
from nre_ros.nre.gnc import linearise, point_gains, refine, smoothed_total
from nre_ros.nre.loss_maps import LossMaps, find_peaks, fine_loss_maps, window_mass
from nre_ros.nre.msac import distinct, find_poses

MIN_POINTS = 4
MIN_WINDOW_MASS = 0.02
"""Points that the coarse map gives less than this chance to be in their fine window are left to the coarse stage."""


@dataclass(frozen=True)
class FineStage:
    """What the fine windows are made of: the landmarks' ``descriptors`` (N, C) and the image's ``features`` (C, h, w)."""

    descriptors: Tensor
    features: Tensor
    inverse_temperature: float
    grid: CellGrid

    def maps(self, index: Tensor, centre_px: Tensor, prior_mass: Tensor, window: int) -> LossMaps:
        """Loss maps of the points ``index`` (M,) in windows around ``centre_px`` (M, 2)."""
        return fine_loss_maps(
            self.descriptors[index], self.features, self.inverse_temperature, self.grid, centre_px, prior_mass, window
        )

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
    fine maps, zero for points without a window. ``timings_ms`` by stage.
    """

    outcome: Outcome
    poses: Pose | None = None
    gains: Tensor | None = None
    covariance: Tensor | None = None
    coarse_share: Tensor | None = None
    fine_share: Tensor | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


def estimate_pose(
    xyz_map: Tensor, camera: Camera, coarse: LossMaps, fine: FineStage | None, config: NreConfig
) -> Estimate:
    """Find the pose that minimises the NRE (Eq. 6) of landmarks ``xyz_map`` (N, 3) under their ``coarse`` maps.

    ``fine`` gives the last stage its windows; without it the coarse pose is final.
    """
    if len(xyz_map) < MIN_POINTS:
        return Estimate(Outcome.TOO_FEW_POINTS)
    timings: dict[str, float] = {}
    xyz_map = xyz_map.double()

    start = time.perf_counter()
    found = find_poses(coarse, find_peaks(coarse), xyz_map, camera, config)
    start = _note(timings, "msac", start)
    if found is None:
        return Estimate(Outcome.NO_HYPOTHESIS, timings_ms=timings)

    poses = _refine_coarse(coarse, xyz_map, camera, found[0], config)
    start = _note(timings, "gnc_coarse", start)

    best, maps, index = poses[:1], coarse, torch.arange(len(xyz_map), device=xyz_map.device)
    sigma = config.coarse_sigma_min
    fine_share = torch.zeros(len(xyz_map), device=xyz_map.device)
    if fine is not None:
        refined = refine_fine(coarse, xyz_map, camera, best, fine, config)
        if refined is not None:
            best, maps, index = refined
            sigma = config.fine_sigma_min
            fine_share[index] = point_gains(maps, xyz_map[index], camera, best)[0] / maps.ceiling
    covariance = pose_covariance(linearise(maps, xyz_map[index], camera, best, sigma, min_curvature=None))
    _note(timings, "gnc_fine", start)

    poses = _joined(best, poses[1:])
    gains = point_gains(coarse, xyz_map, camera, poses)
    return Estimate(
        Outcome.OK,
        poses,
        gains.sum(1, dtype=torch.float64),
        covariance,
        gains[0] / coarse.ceiling,
        fine_share,
        timings,
    )


def refine_fine(
    coarse: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, fine: FineStage, config: NreConfig
) -> tuple[Pose, LossMaps, Tensor] | None:
    """GNC in windows cut around the projections of ``pose`` (a batch of one), cut anew as the pose improves.

    Returns the pose, the last windows' maps and the index (M,) of their points; None when too few points have one.
    """
    result = None
    for turn in range(config.fine_rounds):
        window = max(config.fine_window >> turn, 8)
        uv_px, visible = camera.project(pose.transform(xyz_map))
        uv_px, visible = uv_px[0], visible[0] & camera.contains(uv_px[0])
        uv_px = torch.where(visible[:, None], uv_px, torch.full_like(uv_px, torch.nan))
        half_px = fine.grid.stride * (window // 2 + 0.5)
        mass = window_mass(coarse, uv_px, half_px)
        index = torch.nonzero(visible & (mass > MIN_WINDOW_MASS))[:, 0]
        if len(index) < MIN_POINTS:
            return result
        maps = fine.maps(index, uv_px[index], mass[index], window)
        sigmas = _levels(config.fine_sigma_max if turn == 0 else 1.0, config.fine_sigma_min)
        pose = refine(maps, xyz_map[index], camera, pose, sigmas)
        result = (pose, maps, index)
    return result


def _refine_coarse(coarse: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, config: NreConfig) -> Pose:
    """All hypotheses through the first level on a share of the points, the best two through the others on all.

    Best first by the last level's cost; poses that met on the way are one.
    """
    sigmas = _levels(config.coarse_sigma_max, config.coarse_sigma_min)
    few = torch.arange(0, len(xyz_map), 1 + len(xyz_map) // FIRST_LEVEL_POINTS, device=xyz_map.device)
    poses = refine(coarse.select(few), xyz_map[few], camera, poses, sigmas[:1])

    def ranked(poses: Pose) -> tuple[Pose, Tensor]:
        gains = smoothed_total(coarse, xyz_map, camera, poses, sigmas[-1])
        kept = distinct(poses, gains, coarse, xyz_map[few], camera, 2)
        return poses[kept], gains[kept]

    poses, gains = ranked(poses)
    if len(gains) > 1 and gains[1] < HOPELESS * gains[0]:
        first = refine(coarse, xyz_map, camera, poses[:1], sigmas[1:] or sigmas)
        return _joined(first, poses[1:])
    return ranked(refine(coarse, xyz_map, camera, poses, sigmas[1:] or sigmas))[0]


def _joined(a: Pose, b: Pose) -> Pose:
    return Pose(torch.cat([a.rotation, b.rotation]), torch.cat([a.translation, b.translation]))


def _levels(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """Sigmas from the first to the last, each about half the one before."""
    levels = [sigma_max]
    while levels[-1] > sigma_min * 1.5:
        levels.append(max(levels[-1] / 2, sigma_min))
    return tuple(levels)


def _note(timings: dict[str, float], stage: str, start: float) -> float:
    now = time.perf_counter()
    timings[stage] = 1e3 * (now - start)
    return now
