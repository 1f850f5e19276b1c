"""From landmarks and their loss maps to a pose: MSAC, GNC on the coarse maps, GNC in fine windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, Pose
from nre_ros.nre import original
from nre_ros.nre.covariance import image_parts, pose_covariance
from nre_ros.nre.fine import MIN_POINTS, FineMaps, Windows, refine_fine
from nre_ros.nre.fpr_stage import refine_fpr
from nre_ros.nre.gnc import linearise, point_gains, project_to_cells, refine, sigma_levels, smoothed_total
from nre_ros.nre.loss_maps import LossMaps, Peaks, find_peaks
from nre_ros.nre.msac import Hypotheses, find_poses, rank_poses
from nre_ros.nre.ranking import ranking_maps

WIDENINGS = (1, 2, 4)
"""Of the last sigma: where the covariance is sought."""
FIRST_LEVEL_POINTS = 500
"""About so many points take part in the first, smoothest level, which only sorts the hypotheses."""
HOPELESS = 0.6
"""A second hypothesis with less than this share of the first one's gain is not refined further."""
MIN_PEAK = 0.1
"""A map whose best gain is below this (nats over an even chance for all cells) says nothing."""


class Outcome(Enum):
    OK = "ok"
    TOO_FEW_POINTS = "too few points"
    FLAT_MAPS = "the loss maps prefer no place"
    NO_HYPOTHESIS = "no three points gave a pose"


@dataclass(frozen=True)
class Estimate:
    """What the loss maps say of the camera's pose.

    ``poses`` ``cam_from_map`` (H,), best first, each refined as far as it seemed worth.
    ``gains`` (H,) their summed coarse gains (Eq. 6 turned over: higher is better, at most N * ceiling).
    ``rivalry`` (H,) each one's gain over the first one's, on the finest maps that both were refined on.
    ``covariance`` (6, 6), rotation first, of the twist x in ``exp(x) @ poses[0]``; None if the points do not fix it.
    ``coarse_share`` (N,) each point's coarse gain at the first pose over the ceiling; ``fine_share`` the same of the
    fine maps, zero for points without a window. ``in_view`` (N,) the points whose projection lies on the image,
    ``part`` (N,) int64 which of the image's 8 x 8 parts it lies in.
    ``unusable`` points had no finite place or loss map and were left out.
    """

    outcome: Outcome
    poses: Pose | None = None
    gains: Tensor | None = None
    rivalry: Tensor | None = None
    covariance: Tensor | None = None
    coarse_share: Tensor | None = None
    fine_share: Tensor | None = None
    in_view: Tensor | None = None
    part: Tensor | None = None
    unusable: int = 0


def estimate_pose(
    xyz_map: Tensor,
    camera: Camera,
    coarse: LossMaps,
    fine: FineMaps | None,
    config: NreConfig,
    done: Callable[[str], None] = lambda stage: None,
    starts: Pose | None = None,
    coarse_levels: int | None = None,
) -> Estimate:
    """Find the pose that minimises the NRE (Eq. 6) of landmarks ``xyz_map`` (N, 3) under their ``coarse`` maps.

    ``fine`` gives the last stage its windows; without it the coarse pose is final. ``done`` is told the name of each
    stage as it ends. ``starts`` are first poses ``cam_from_map`` (H,), where they are known: then nothing is sampled.
    From such starts only the first ``coarse_levels`` of smoothing of the coarse maps are climbed, none with 0, where
    the fine windows find on from there.
    """
    batch = replace(coarse, gain=coarse.gain[None], origin_cells=coarse.origin_cells[None])
    first = None if starts is None else starts[None]
    return estimate_poses(
        xyz_map[None], camera, batch, None if fine is None else [fine], config, done, first, coarse_levels
    )[0]


def estimate_poses(
    xyz_map: Tensor,
    camera: Camera,
    coarse: LossMaps,
    fine: Sequence[FineMaps] | None,
    config: NreConfig,
    done: Callable[[str], None] = lambda stage: None,
    starts: Pose | None = None,
    coarse_levels: int | None = None,
) -> list[Estimate]:
    """:func:`estimate_pose` for Q images of one camera at once: ``xyz_map`` (Q, N, 3), ``coarse`` maps (Q, N), ``fine``
    one source a query, ``starts`` (Q, H). A query with fewer points than another is filled up with maps of no gain."""
    queries, count = xyz_map.shape[:2]
    if count < MIN_POINTS:
        return [Estimate(Outcome.TOO_FEW_POINTS)] * queries
    xyz_map, coarse, peaks, unusable = _usable(xyz_map.double(), coarse)
    as_original = config.conventions == "original"
    if as_original:
        coarse = original.half_pixel(coarse)
    if config.use_re:
        coarse = coarse.one_hot()
        peaks, config = find_peaks(coarse), replace(config, msac_share=1.0)  # no match is more certain than another
    counts, ranking = peaks.mass > 0, coarse
    if starts is None:
        if not as_original and not config.use_re:
            ranking = ranking_maps(coarse, counts)
        found = find_poses(coarse, ranking, peaks, xyz_map, camera, config)
    else:
        found = rank_poses(coarse, peaks, xyz_map, camera, starts, config.hypotheses)
    done("msac" if starts is None else "starts")

    ahead, rest, windows = found, found.without(found.gains > -torch.inf), None
    if as_original:
        ahead = original.best_by_msac(coarse, peaks, xyz_map, camera, found, config.msac_share)
    if not config.skip_gnc:
        if as_original:
            ahead = original.refine_coarse(coarse, xyz_map, camera, ahead, config)
        elif coarse_levels is None or fine is None or not _windows_reach(config):
            ahead, rest = _refine_coarse(coarse, ranking, xyz_map, counts, camera, found, config)
        elif coarse_levels:
            sigmas = sigma_levels(config.coarse_sigma_max, config.coarse_sigma_min)[:coarse_levels]
            ahead = found.refined(*refine(coarse, xyz_map, camera, found.poses, sigmas))
        done("gnc_coarse")
        if fine is not None:
            if config.refinement == "fpr":
                ahead, windows = refine_fpr(coarse, xyz_map, camera, ahead, fine, config)
            elif as_original:
                ahead, windows = original.refine_fine(coarse, xyz_map, camera, ahead, fine, config)
            else:
                near = coarse_levels is not None
                ahead, windows = _refine_fine(coarse, xyz_map, camera, ahead, fine, config, near)
        done("gnc_fine")
    return _report(xyz_map, camera, coarse, ranking, counts, ahead, rest, windows, unusable.tolist(), config)


def _windows_reach(config: NreConfig) -> bool:
    """Whether the fine stage finds on from poses nearby; alignment of features (FPR) does not reach so far."""
    return config.fine_rounds > 0 and config.refinement == "nre"


def _usable(xyz_map: Tensor, coarse: LossMaps) -> tuple[Tensor, LossMaps, Peaks, Tensor]:
    """Points (Q, N, 3) and maps with those that hold NaN or infinity emptied; the peaks; how many (Q,) were bad."""
    peaks = find_peaks(coarse)
    bad = ~(torch.isfinite(coarse.gain.sum((-1, -2), dtype=torch.float32)) & torch.isfinite(xyz_map).all(-1))
    if bool(bad.any()):
        xyz_map = xyz_map.masked_fill(bad[..., None], 0)
        coarse = replace(coarse, gain=coarse.gain.masked_fill(bad[..., None, None], 0))
        peaks = find_peaks(coarse)
    says_something = (peaks.gain > MIN_PEAK) & ~bad
    return xyz_map, coarse, replace(peaks, mass=peaks.mass * says_something), bad.sum(1)


def _refine_coarse(
    coarse: LossMaps,
    ranking: LossMaps,
    xyz_map: Tensor,
    counts: Tensor,
    camera: Camera,
    found: Hypotheses,
    config: NreConfig,
) -> tuple[Hypotheses, Hypotheses]:
    """All hypotheses through the first level on a share of the points, then the best one, or two if the second has
    hope, through the others on all.

    Returns the one or two, and the rest. Poses that met on the way are one.
    """
    sigmas = sigma_levels(config.coarse_sigma_max, config.coarse_sigma_min)
    few = torch.arange(0, len(coarse), 1 + len(coarse) // FIRST_LEVEL_POINTS, device=xyz_map.device)
    sparse, xyz_few = coarse.select(few), xyz_map[:, few]

    first = found.refined(*refine(sparse, xyz_few, camera, found.poses, sigmas[:1]))
    first = _ranked(first, ranking.select(few), xyz_few, camera, sigmas[0])
    first = first.distinct(coarse.grid, xyz_few, counts[:, few], camera, found.count)
    hopeful = (first.gains > HOPELESS * first.gains[:, :1]) & (torch.arange(first.count, device=few.device) < 2)
    hopeful[:, 0] = True
    ahead = first.without(~hopeful).best(2 if found.gains.is_cuda or bool(hopeful[:, 1:].any()) else 1)
    ahead = ahead.refined(*refine(coarse, xyz_map, camera, ahead.poses, sigmas[1:] or sigmas))
    ahead = _ranked(ahead, ranking, xyz_map, camera, sigmas[-1])
    return ahead.distinct(coarse.grid, xyz_few, counts[:, few], camera, 2), first.without(hopeful)


def _ranked(found: Hypotheses, ranking: LossMaps, xyz_map: Tensor, camera: Camera, sigma: float) -> Hypotheses:
    """The hypotheses with their smoothed gains on the ranking maps."""
    return found.refined(found.poses, smoothed_total(ranking, xyz_map, camera, found.poses, sigma))


def _refine_fine(
    coarse: LossMaps,
    xyz_map: Tensor,
    camera: Camera,
    ahead: Hypotheses,
    fine: Sequence[FineMaps],
    config: NreConfig,
    near: bool,
) -> tuple[Hypotheses, Windows | None]:
    """Both hypotheses in fine windows, best first by the fine cost, and the windows of the best (Q, 1)."""
    poses, gains, windows = refine_fine(coarse, xyz_map, camera, ahead.poses, fine, config, near)
    if windows is None:
        return ahead, None
    refined = ahead.refined(poses, gains)
    order = refined.gains.argsort(dim=1, descending=True, stable=True)
    return refined.take(order), windows.take(order[:, :1])


def _report(
    xyz_map: Tensor,
    camera: Camera,
    coarse: LossMaps,
    ranking: LossMaps,
    counts: Tensor,
    ahead: Hypotheses,
    rest: Hypotheses,
    windows: Windows | None,
    unusable: list[int],
    config: NreConfig,
) -> list[Estimate]:
    """What the maps say at the poses found, query by query."""
    best = ahead.poses[:, :1]
    fine_share = xyz_map.new_zeros(xyz_map.shape[:2], dtype=torch.float32)
    if windows is None:
        covariance, fixed = _covariance(coarse, xyz_map, camera, best, config.coarse_sigma_min)
    else:
        maps, alone = windows.maps, best[:, :, None]
        share = point_gains(maps, windows.xyz_map, camera, alone)[:, 0, 0] / maps.ceiling
        fine_share.scatter_(1, windows.index[:, 0], share.to(fine_share))
        found = _covariance(maps, windows.xyz_map, camera, alone, config.fine_sigma_min)
        covariance, fixed = (values[:, :, 0] for values in found)

    every = _places(ahead, rest, ranking, xyz_map, counts, camera)
    gains = point_gains(coarse, xyz_map, camera, every.poses)
    uv_px, visible = camera.project(best.transform(xyz_map[:, None]))
    in_view = (visible & camera.contains(uv_px))[:, 0]
    part = image_parts(uv_px, (camera.width, camera.height))[:, 0]
    says_something = counts.sum(1).tolist()
    estimates = []
    for q, real in enumerate((every.gains > -torch.inf).cpu()):
        if says_something[q] < MIN_POINTS:
            estimates.append(Estimate(Outcome.FLAT_MAPS, unusable=unusable[q]))
        elif not bool(real[0]):
            estimates.append(Estimate(Outcome.NO_HYPOTHESIS, unusable=unusable[q]))
        else:
            estimates.append(
                Estimate(
                    Outcome.OK,
                    every.poses[q][real],
                    gains[q][real].sum(-1, dtype=torch.float64),
                    every.gains[q][real],
                    covariance[q, 0] if bool(fixed[q, 0]) else None,
                    gains[q, 0] / coarse.ceiling,
                    fine_share[q],
                    in_view[q],
                    part[q],
                    unusable[q],
                )
            )
    return estimates


def _covariance(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, sigma: float) -> tuple[Tensor, Tensor]:
    """As :func:`pose_covariance`, at the first of :data:`WIDENINGS` of ``sigma`` (cells) at which the cost about the
    pose is a bowl. Where it is not so at its sharpest, the pose is less sure, and so is what this gives."""
    covariance, fixed = torch.empty(0), torch.zeros((), dtype=torch.bool)
    part = image_parts(project_to_cells(maps, xyz_map, camera, poses)[0], maps.image_cells)
    for i, wider in enumerate(WIDENINGS):
        at_pose = linearise(maps, xyz_map, camera, poses, wider * sigma, min_curvature=None)
        there, holds = pose_covariance(at_pose, part)
        covariance = there if i == 0 else torch.where(fixed[..., None, None], covariance, there)
        fixed = holds if i == 0 else fixed | holds
        if not fixed.is_cuda and bool(fixed.all()):
            break
    return covariance, fixed


def _places(
    ahead: Hypotheses, rest: Hypotheses, ranking: LossMaps, xyz_map: Tensor, counts: Tensor, camera: Camera
) -> Hypotheses:
    """All hypotheses, best first, without those that see the same place as a better one: most of their projections
    agree. Their ``gains`` are relative to the first one's, on the finest maps that both were refined on."""
    if ahead.count == 1 and not ahead.gains.is_cuda and not bool((rest.gains > -torch.inf).any()):
        return ahead.refined(ahead.poses, torch.ones_like(ahead.gains))
    few = torch.arange(0, len(ranking), 1 + len(ranking) // FIRST_LEVEL_POINTS, device=xyz_map.device)
    first = ahead.poses[:, :1]
    scale = point_gains(ranking, xyz_map, camera, first).sum(-1).clamp_min(1e-9)
    others = rest.refined(rest.poses, point_gains(ranking, xyz_map, camera, rest.poses).sum(-1) / scale)
    ranked = ahead.refined(ahead.poses, ahead.gains / ahead.gains[:, :1].clamp_min(1e-9)).joined(others)
    # the first stays first, should another explain more of the coarse maps
    leads = (torch.arange(ranked.count, device=few.device) == 0) & (ranked.gains > -torch.inf)
    ordered = Hypotheses(ranked.poses, ranked.gains.masked_fill(leads, torch.inf))
    every = ordered.distinct(ranking.grid, xyz_map[:, few], counts[:, few], camera, ranked.count, quantile=0.5)
    return Hypotheses(every.poses, every.gains.where(every.gains < torch.inf, 1.0))
