"""First poses: P3P on the maps' best cells, judged by the maps themselves (section 4.2 of the NRE paper)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, Pose
from nre_ros.nre.gnc import join_poses, point_gains, unsmoothed_gain
from nre_ros.nre.loss_maps import LossMaps, Peaks
from nre_ros.nre.p3p import solve_p3p

BATCH = 250
"""Triplets drawn between two looks at whether to go on."""
SHORTLIST = 32
"""Poses of a batch that are scored on all points after a first look at some."""
FIRST_LOOK = 100
MISS_PROBABILITY = 1e-4
"""Sampling ends when a better triplet was missed with at most this probability."""
DISTINCT_CELLS = 3.0
"""Poses whose projections differ by less (median, cells) are one hypothesis."""


def find_poses(
    maps: LossMaps, peaks: Peaks, xyz_map: Tensor, camera: Camera, config: NreConfig
) -> tuple[Pose, Tensor] | None:
    """The best distinct poses ``cam_from_map`` (H,), best first, with their summed gains (H,); None if there are none.

    ``xyz_map`` (N, 3) float64. All randomness comes from ``config.seed``.
    """
    generator = torch.Generator(device="cpu").manual_seed(config.seed)
    chances = _sampling_chances(peaks, config.msac_share)
    if int((chances > 0).sum()) < 4:
        return None
    bearings = camera.unproject(maps.grid.pixel_from_cell(peaks.xy_cells.to(xyz_map)))
    look = torch.randperm(len(maps), generator=generator)[:FIRST_LOOK].to(xyz_map.device)
    looked_at = maps.select(look)
    # scoring thousands of poses needs no float64
    xyz_scored = xyz_map.float()

    found: Pose | None = None
    gains = xyz_map.new_empty(0)
    drawn = 0
    while drawn < config.msac_iterations:
        triplets = _draw_triplets(chances, min(BATCH, config.msac_iterations - drawn), generator).to(xyz_map.device)
        drawn += BATCH
        poses, valid = solve_p3p(bearings[triplets], xyz_map[triplets])
        poses = Pose(poses.rotation[valid], poses.translation[valid])
        if len(poses.rotation):
            first = unsmoothed_gain(looked_at, xyz_scored[look], camera, poses.to(torch.float32))
            best = first.topk(min(SHORTLIST, len(first))).indices
            poses = poses[best]
            scores = unsmoothed_gain(maps, xyz_scored, camera, poses.to(torch.float32))
            found, gains = _join(found, gains, poses, scores)
        if found is not None and _enough(drawn, chances, maps, peaks, xyz_map, camera, found[:1]):
            break
    if found is None:
        return None
    kept = distinct(found, gains, maps, xyz_map[look], camera, config.hypotheses)
    return found[kept], gains[kept]


def _sampling_chances(peaks: Peaks, share: float) -> Tensor:
    """Chance (N,) of a point to enter a triplet: its peak's mass, for the most certain ``share`` of the points."""
    count = max(min(len(peaks.mass), 16), math.ceil(share * len(peaks.mass)))
    best = peaks.mass.topk(min(count, len(peaks.mass)))
    chances = torch.zeros_like(peaks.mass)
    chances[best.indices] = best.values
    return (chances / chances.sum().clamp_min(1e-30)).cpu()


def _draw_triplets(chances: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Triplets (M, 3) of distinct points, M at most ``count``."""
    drawn = torch.multinomial(chances, count * 3, replacement=True, generator=generator).view(count, 3)
    distinct = (drawn[:, 0] != drawn[:, 1]) & (drawn[:, 0] != drawn[:, 2]) & (drawn[:, 1] != drawn[:, 2])
    return drawn[distinct]


def _join(found: Pose | None, gains: Tensor, poses: Pose, new_gains: Tensor) -> tuple[Pose, Tensor]:
    """Both sets, best first, cut to the shortlist's length."""
    if found is not None:
        poses, new_gains = join_poses(found, poses), torch.cat([gains, new_gains])
    order = new_gains.argsort(descending=True)[:SHORTLIST]
    return poses[order], new_gains[order]


def _enough(
    drawn: int, chances: Tensor, maps: LossMaps, peaks: Peaks, xyz_map: Tensor, camera: Camera, best: Pose
) -> bool:
    """Whether, given how many peaks the best pose explains, a triplet of explained peaks must have been drawn."""
    explained = point_gains(maps, xyz_map, camera, best)[0] > 0.5 * peaks.gain
    good_triplet = float((chances.to(explained.device) * explained).sum()) ** 3
    return good_triplet > 0 and drawn * math.log1p(-min(good_triplet, 1 - 1e-9)) < math.log(MISS_PROBABILITY)


def distinct(poses: Pose, gains: Tensor, maps: LossMaps, xyz_map: Tensor, camera: Camera, most: int) -> list[int]:
    """Indices of up to ``most`` poses, best first, whose projections differ from those of every better one kept."""
    uv_px, _ = camera.project(poses.transform(xyz_map))
    xy = maps.grid.cell_from_pixel(uv_px)
    apart = ((xy[:, None] - xy[None]).norm(dim=-1).median(-1).values > DISTINCT_CELLS).tolist()
    kept: list[int] = []
    for i in gains.argsort(descending=True).tolist():
        if len(kept) < most and all(apart[i][j] for j in kept):
            kept.append(i)
    return kept
