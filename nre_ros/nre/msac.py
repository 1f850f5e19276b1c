"""First poses: P3P on the maps' best cells, judged by the maps themselves (section 4.2 of the NRE paper)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.nre.gnc import nearest_gains, point_gains
from nre_ros.nre.loss_maps import LossMaps, Peaks
from nre_ros.nre.p3p import solve_p3p

BATCHES = (250, 250, 500, 1000, 2000)
"""Triplets drawn between looks at whether to go on, the last again and again (on CUDA, where a look costs more than
poses, all are drawn at once)."""
SHORTLIST = 32
"""Poses of a batch that are scored on all points after a first look at some."""
FIRST_LOOK = 100
HARD_DRAWS, HARD_FACTOR = 500, 4
"""After so many triplets without an answer, so many times more poses are kept, for triplets and in the end: P3P on few
right points among many wrong ones is too rough for the best pose to stand out before it is refined."""
MISS_PROBABILITY = 1e-4
"""Sampling ends when a better triplet was missed with at most this probability."""
DISTINCT_CELLS, DISTINCT_QUANTILE = 3.0, 0.9
"""Poses whose projections differ by less (cells, at this quantile) are one hypothesis. Not the median: where most
points are far, it sees two positions as one."""


@dataclass(frozen=True)
class Hypotheses:
    """``poses`` cam_from_map (Q, H), best first, and their summed ``gains`` (Q, H), minus infinity where a query has
    fewer poses than another."""

    poses: Pose
    gains: Tensor

    @property
    def count(self) -> int:
        return self.gains.shape[1]

    def refined(self, poses: Pose, gains: Tensor) -> Hypotheses:
        """The same hypotheses, improved."""
        return Hypotheses(poses, torch.where(self.gains > -torch.inf, gains.to(self.gains), -torch.inf))

    def without(self, mask: Tensor) -> Hypotheses:
        """Those of ``mask`` (Q, H) given up."""
        return Hypotheses(self.poses, self.gains.masked_fill(mask, -torch.inf))

    def take(self, index: Tensor) -> Hypotheses:
        """Those of ``index`` (Q, K), in that order."""
        rotation = self.poses.rotation.take_along_dim(index[..., None, None], 1)
        translation = self.poses.translation.take_along_dim(index[..., None], 1)
        return Hypotheses(Pose(rotation, translation), self.gains.take_along_dim(index, 1))

    def best(self, count: int) -> Hypotheses:
        return self.take(self.gains.topk(min(count, self.count), dim=1).indices)

    def joined(self, other: Hypotheses | None) -> Hypotheses:
        if other is None:
            return self
        return Hypotheses(
            Pose(
                torch.cat([self.poses.rotation, other.poses.rotation], 1),
                torch.cat([self.poses.translation, other.poses.translation], 1),
            ),
            torch.cat([self.gains, other.gains], 1),
        )

    def distinct(
        self,
        grid: CellGrid,
        xyz_map: Tensor,
        counts: Tensor,
        camera: Camera,
        most: int,
        quantile: float = DISTINCT_QUANTILE,
    ) -> Hypotheses:
        """Up to ``most`` poses, best first, that differ from every better one kept in the projections of the points
        (Q, N, 3) of which ``counts`` (Q, N) is true."""
        if self.count == 1:
            return self
        order = self.gains.argsort(dim=1, descending=True)
        ranked = self.take(order)
        uv_px, _ = camera.project(ranked.poses.transform(xyz_map[:, None]))
        xy = grid.cell_from_pixel(uv_px).masked_fill(~counts[:, None, :, None], torch.nan)
        moved = (xy[:, :, None] - xy[:, None]).norm(dim=-1).nanquantile(quantile, dim=-1)
        apart = moved > DISTINCT_CELLS
        kept = [_greedy(far, real, most) for far, real in zip(apart.tolist(), ranked.gains.tolist(), strict=True)]
        longest = max(len(each) for each in kept)
        index = torch.tensor([each + [0] * (longest - len(each)) for each in kept], device=self.gains.device)
        real = torch.tensor([[i < len(each) for i in range(longest)] for each in kept], device=self.gains.device)
        chosen = ranked.take(index)
        return Hypotheses(chosen.poses, chosen.gains.masked_fill(~real, -torch.inf))


def _greedy(apart: list[list[bool]], gains: list[float], most: int) -> list[int]:
    kept: list[int] = []
    for i, gain in enumerate(gains):
        if len(kept) < most and gain > -math.inf and all(apart[i][j] for j in kept):
            kept.append(i)
    return kept or [0]


def find_poses(
    maps: LossMaps, ranking: LossMaps, peaks: Peaks, xyz_map: Tensor, camera: Camera, config: NreConfig
) -> Hypotheses:
    """The best distinct poses of each query, by its ``ranking`` maps; its points are ``xyz_map`` (Q, N, 3) float64.

    All randomness comes from ``config.seed``, the same for every query: alone or in a batch, its answer is the same.
    """
    queries, count = peaks.mass.shape
    generators = [torch.Generator().manual_seed(config.seed) for _ in range(queries)]
    chances = _sampling_chances(peaks, config.msac_share)
    bearings = camera.unproject(maps.grid.pixel_from_cell(peaks.xy_cells.to(xyz_map)))
    look = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed))[:FIRST_LOOK].to(xyz_map.device)
    looked_at = ranking.select(look)
    # scoring thousands of poses needs no float64
    xyz_scored = xyz_map.float()
    row = torch.arange(queries, device=xyz_map.device)[:, None, None]

    found: Hypotheses | None = None
    finished = torch.zeros(queries, dtype=torch.bool, device=xyz_map.device)
    drawn = 0
    for size in _batches(config.msac_iterations, xyz_map.is_cuda):
        triplets, usable = _draw_triplets(chances, size, generators)
        drawn += size
        triplets, usable = triplets.to(xyz_map.device), usable.to(xyz_map.device) & ~finished[:, None]
        poses, valid = solve_p3p(bearings[row, triplets].flatten(0, 1), xyz_map[row, triplets].flatten(0, 1))
        valid = (valid.view(queries, -1, 4) & usable[..., None]).flatten(1)
        poses = Pose(poses.rotation.view(queries, -1, 3, 3), poses.translation.view(queries, -1, 3))
        solved = Hypotheses(poses, torch.where(valid, 0.0, -torch.inf))
        # only so many are looked at as the query with most has (on CUDA all: counting would wait for it)
        solved = solved if xyz_map.is_cuda else solved.best(max(int(valid.sum(1).max()), 1))
        first = nearest_gains(looked_at, xyz_scored[:, look], camera, solved.poses.to(torch.float32)).sum(-1)
        keep = SHORTLIST * (HARD_FACTOR if drawn > HARD_DRAWS else 1)
        shortlist = Hypotheses(solved.poses, first + solved.gains).best(keep)
        gains = nearest_gains(ranking, xyz_scored, camera, shortlist.poses.to(torch.float32)).sum(-1)
        found = shortlist.refined(shortlist.poses, gains).joined(found).best(keep)
        if not xyz_map.is_cuda:
            finished |= _enough(drawn, chances, maps, peaks, xyz_map, camera, found)
            if bool(finished.all()):
                break
    assert found is not None
    most = config.hypotheses * HARD_FACTOR
    kept = found.distinct(maps.grid, xyz_map[:, look], peaks.mass[:, look] > 0, camera, most)
    surplus = finished[:, None] & (torch.arange(kept.count, device=finished.device) >= config.hypotheses)
    return kept.without(surplus).best(most if not bool(finished.all()) else config.hypotheses)


def rank_poses(maps: LossMaps, peaks: Peaks, xyz_map: Tensor, camera: Camera, poses: Pose, most: int) -> Hypotheses:
    """The up to ``most`` best distinct ones of given ``poses`` (Q, H), in place of sampled ones."""
    if poses.translation.shape[1] == 1:
        return Hypotheses(poses.to(xyz_map), torch.zeros(len(xyz_map), 1, device=xyz_map.device))
    gains = nearest_gains(maps, xyz_map.float(), camera, poses.to(torch.float32)).sum(-1)
    found = Hypotheses(poses.to(xyz_map), gains)
    return found.best(SHORTLIST).distinct(maps.grid, xyz_map, peaks.mass > 0, camera, most)


def _batches(most: int, at_once: bool) -> Iterator[int]:
    """Batch sizes that add up to ``most``."""
    for size in itertools.chain((most,) if at_once else BATCHES, itertools.repeat(BATCHES[-1])):
        if most <= 0:
            return
        yield min(size, most)
        most -= size


def _sampling_chances(peaks: Peaks, share: float) -> Tensor:
    """Chance (Q, N) of a point to enter a triplet: its peak's mass, for the most certain ``share`` of the points."""
    points = peaks.mass.shape[1]
    best = peaks.mass.topk(min(points, max(16, math.ceil(share * points))), dim=1)
    chances = torch.zeros_like(peaks.mass).scatter_(1, best.indices, best.values)
    return (chances / chances.sum(1, keepdim=True).clamp_min(1e-30)).cpu()


def _draw_triplets(chances: Tensor, count: int, generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
    """``count`` triplets (Q, M, 3) a query and whether (Q, M) their points are distinct; none where nothing may be
    drawn."""
    drawable = chances.sum(1) > 0
    drawn = torch.stack(
        [
            torch.multinomial(each if able else torch.ones_like(each), count * 3, True, generator=generator)
            for each, able, generator in zip(chances, drawable.tolist(), generators, strict=True)
        ]
    ).unflatten(1, (count, 3))
    a, b, c = drawn.unbind(-1)
    return drawn, (a != b) & (a != c) & (b != c) & drawable[:, None]


def _enough(
    drawn: int, chances: Tensor, maps: LossMaps, peaks: Peaks, xyz_map: Tensor, camera: Camera, found: Hypotheses
) -> Tensor:
    """Whether (Q,), given how many peaks its best pose explains, a query must have drawn a triplet of such peaks."""
    best = found.take(found.gains.argmax(1, keepdim=True))
    explained = point_gains(maps, xyz_map, camera, best.poses)[:, 0] > 0.5 * peaks.gain
    good = (chances.to(explained.device) * explained).sum(1).double() ** 3
    missed = drawn * torch.log1p(-good.clamp_max(1 - 1e-9)) < math.log(MISS_PROBABILITY)
    return missed & (best.gains[:, 0] > -torch.inf)
