"""Landmarks from rays: robust, for all tracks at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nre_ros.geometry import Pose

PAIRS = 12
"""Pairs of rays tried as a start for each track."""


def two_view_depths(bearings_a: Tensor, bearings_b: Tensor, a_from_b: Pose) -> Tensor:
    """Depths (M,) along a's optical axis of points seen in two views, from unit rays (N, 3); only those in front of
    both with at least half a degree between the rays."""
    rays_b = bearings_b @ a_from_b.rotation.T
    cosine = (bearings_a * rays_b).sum(-1)
    da = (bearings_a * a_from_b.translation).sum(-1)
    db = (rays_b * a_from_b.translation).sum(-1)
    determinant = (1 - cosine**2).clamp_min(1e-12)
    along_a = (da - cosine * db) / determinant
    along_b = (cosine * da - db) / determinant
    good = (along_a > 0) & (along_b > 0) & (determinant > 7.6e-5)
    return (along_a * bearings_a[:, 2])[good]


def triangulate(
    track: Tensor, origin: Tensor, ray: Tensor, count: int, focal_px: Tensor, scale_px: float, iterations: int = 10
) -> Tensor:
    """Points (T, 3) nearest to their rays, in the map frame, for ``count`` = T tracks with M rays in all.

    ``track`` (M,) int64 names each ray's track; ``origin`` and unit ``ray`` (M, 3) float64 in the map frame;
    ``focal_px`` (M,) turns angles into pixels. Starts from the pair of rays that most others agree with, then is
    iteratively reweighted: each ray by its inverse distance squared, so that angles are minimised, and by a Cauchy
    weight of ``scale_px``. NaN where the rays are parallel.
    """
    plane = torch.eye(3, dtype=ray.dtype) - ray[:, :, None] * ray[:, None, :]

    def error_px(xyz: Tensor) -> Tensor:
        to_point = xyz[track] - origin
        along = (to_point * ray).sum(-1)
        error = (plane @ to_point[..., None])[..., 0].norm(dim=-1) / along.clamp_min(1e-12) * focal_px
        return torch.where(along > 0, error, torch.inf).nan_to_num(nan=torch.inf)

    xyz = _best_pair_point(track, origin, plane, count, lambda p: error_px(p) < 2 * scale_px)
    for _ in range(iterations):
        distance = (xyz[track] - origin).norm(dim=-1).clamp_min(1e-12)
        weight = torch.nan_to_num(1 / (distance**2 * (1 + (error_px(xyz) / scale_px) ** 2)))
        xyz = _meet(track, origin, plane, weight, count)
    return xyz


def _meet(track: Tensor, origin: Tensor, plane: Tensor, weight: Tensor, count: int) -> Tensor:
    """Weighted least-squares points (T, 3) nearest to the rays of each track; NaN where these do not fix one."""
    weighted = weight[:, None, None] * plane
    normal = torch.zeros((count, 3, 3), dtype=plane.dtype).index_add_(0, track, weighted)
    rhs = torch.zeros((count, 3), dtype=plane.dtype).index_add_(0, track, (weighted @ origin[:, :, None])[..., 0])
    scale = normal.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-300)
    inverse, info = torch.linalg.inv_ex(normal / scale[:, None, None])
    xyz = (inverse @ (rhs / scale[:, None])[..., None])[..., 0]
    return torch.where(((info == 0) & torch.isfinite(xyz).all(-1))[:, None], xyz, torch.nan)


def _best_pair_point(
    track: Tensor, origin: Tensor, plane: Tensor, count: int, agrees: Callable[[Tensor], Tensor]
) -> Tensor:
    """Of :data:`PAIRS` random pairs of rays per track, the meeting point that most of the track's rays agree with."""
    generator = torch.Generator().manual_seed(0)
    order = torch.argsort(track, stable=True)
    length = torch.bincount(track, minlength=count)
    start = torch.cumsum(length, 0) - length
    several = torch.nonzero(length >= 2)[:, 0]
    best = torch.full((count, 3), torch.nan, dtype=origin.dtype)
    votes = torch.full((count,), -1)
    for _ in range(PAIRS):
        first = (torch.rand(len(several), generator=generator) * length[several]).long()
        skip = 1 + (torch.rand(len(several), generator=generator) * (length[several] - 1)).long()
        second = (first + skip) % length[several]
        pair = order[torch.cat([start[several] + first, start[several] + second])]
        xyz = _meet(track[pair], origin[pair], plane[pair], torch.ones(len(pair), dtype=origin.dtype), count)
        now = torch.zeros(count, dtype=torch.long).index_add_(0, track, agrees(xyz).long())
        better = (now > votes) & torch.isfinite(xyz).all(-1)
        best[better], votes[better] = xyz[better], now[better]
    return best


def widest_angle_deg(track: Tensor, origin: Tensor, xyz: Tensor) -> Tensor:
    """Twice the largest angle (T,) between the rays of each track and their mean: the parallax that fixed it."""
    direction = torch.nn.functional.normalize(xyz[track] - origin, dim=-1)
    mean = torch.zeros_like(xyz).index_add_(0, track, direction)
    mean = torch.nn.functional.normalize(mean, dim=-1)
    half = (direction - mean[track]).norm(dim=-1)
    widest = torch.zeros(len(xyz), dtype=xyz.dtype).scatter_reduce_(0, track, half, "amax")
    return torch.rad2deg(4 * torch.asin((widest / 2).clamp(max=1)))
