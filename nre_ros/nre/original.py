"""The conventions of the original code, for comparisons with it; ours mend what its users would trip over.

What differs: cells lie on pixels by the half-pixel rule, projections beyond a map read its border, the Jacobian knows
the first radial distortion term alone, the smoothed cost is a plain sum, the damping is the identity's, and the
smoothing falls when a step gains little. Only what shapes the numbers is kept; no fault that merely costs time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.geometry.pose import hat
from nre_ros.nre.fine import FineMaps, Windows, cut_windows
from nre_ros.nre.loss_maps import LossMaps, Peaks
from nre_ros.nre.msac import Hypotheses

MIN_DEPTH = 1e-4
LEAST_DAMPING, MOST_DAMPING = 1e-8, 1e7
LEAST_QUALITY = 0.1
"""A step whose points agree less than this on whether it is good ends a smoothing level."""
LEAST_DECREASE = 1e-5
MOST_STEPS = 300
"""The original goes on for ever where costs differ by rounding alone; its usual runs take about 70."""


def half_pixel(maps: LossMaps) -> LossMaps:
    """The maps with cell x of stride s centred on pixel s x + (s - 1) / 2, whatever the network says."""
    stride = maps.grid.stride
    return replace(maps, grid=CellGrid(stride, (stride - 1) / 2))


def schedule(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """The sigmas (cells) of the original's list that lie within the bounds; 1 comes twice."""
    every = [1024.0 * k for k in range(11, 0, -1)] + [2.0**k for k in range(9, -1, -1)]
    every += [k / 10 for k in range(10, 1, -1)]
    return tuple(sigma for sigma in every if sigma_min <= sigma <= sigma_max)


def msac_cost(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose) -> Tensor:
    """Loss (N,) of each point at its projection, bilinear, the border's beyond the map, ln|Omega| behind the camera."""
    xy, in_front = _project(maps, xyz_map, camera, pose)
    height, width = maps.gain.shape[-2:]
    local = (xy - maps.origin_cells).maximum(xy.new_zeros(2)).minimum(xy.new_tensor([width - 1.0, height - 1.0]))
    gain = maps.read((local + maps.origin_cells)[None])[0]
    return maps.ceiling - torch.where(in_front, gain, torch.zeros_like(gain))


@dataclass(frozen=True)
class _Sums:
    """Of each point: ``cost`` (N,), ``weight`` (N,) = sum_q t and ``pull`` (N, 2) = sum_q t (q - w), with
    t = k(q - w) gain(q) / sigma^2."""

    cost: Tensor
    weight: Tensor
    pull: Tensor


def smoothed_cost(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, sigma: float) -> Tensor:
    """Eq. 8: cost (N,) of each point, minus its Gaussian-smoothed gain; zero behind the camera."""
    xy, in_front = _project(maps, xyz_map, camera, pose)
    return _sums(maps, xy, sigma).cost * in_front


def _sums(maps: LossMaps, xy: Tensor, sigma: float) -> _Sums:
    def kernel(axis: int, size: int) -> tuple[Tensor, Tensor]:
        offset = maps.origin_cells[:, axis, None] + torch.arange(size, device=xy.device) - xy[:, axis, None]
        k = torch.exp(-offset * offset / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
        return k, k * offset

    height, width = maps.gain.shape[-2:]
    (kx, rx), (ky, ry) = kernel(0, width), kernel(1, height)
    columns = maps.gain.to(xy) @ torch.stack([kx, rx], -1)  # (N, h, 2)
    along_y = torch.stack([ky, ry], 1)
    moments = along_y @ columns  # (N, power of y, power of x)
    pull = torch.stack([moments[:, 0, 1], moments[:, 1, 0]], -1) / sigma**2
    return _Sums(-moments[:, 0, 0], moments[:, 0, 0] / sigma**2, pull)


def _project(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose) -> tuple[Tensor, Tensor]:
    xyz_cam = pose.transform(xyz_map)
    in_front = xyz_cam[:, 2] >= MIN_DEPTH
    held = torch.cat([xyz_cam[:, :2], xyz_cam[:, 2:].clamp_min(MIN_DEPTH)], 1)
    return maps.grid.cell_from_pixel(camera.project(held)[0]), in_front


def jacobian(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose) -> Tensor:
    """(N, 2, 6) of the projections in cells by a rotation vector about the camera's axes and a translation, added after
    it; of the distortion only k1 is differentiated."""
    rotated = xyz_map @ pose.rotation.mT
    xyz_cam = rotated + pose.translation
    z = xyz_cam[:, 2].clamp_min(MIN_DEPTH)
    x, y = xyz_cam[:, 0] / z, xyz_cam[:, 1] / z
    zero = torch.zeros_like(z)
    perspective = torch.stack([1 / z, zero, -x / z, zero, 1 / z, -y / z], -1).unflatten(-1, (2, 3))
    k1 = float(camera.coefficients()[0])
    radial = 1 + k1 * (x * x + y * y)
    bend = torch.stack([radial + 2 * k1 * x * x, 2 * k1 * x * y, 2 * k1 * x * y, radial + 2 * k1 * y * y], -1)
    focal = z.new_tensor([camera.fx, camera.fy])[:, None] / maps.grid.stride
    by_point = focal * (bend.unflatten(-1, (2, 2)) @ perspective)
    return torch.cat([-by_point @ hat(rotated), by_point], -1)


def step(
    maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, sigma: float, damping: float
) -> tuple[Tensor, Pose]:
    """Eq. 9: the twist (6,), rotation first, of one damped IRLS step, and the pose after it."""
    xy, _ = _project(maps, xyz_map, camera, pose)
    sums = _sums(maps, xy, sigma)
    by_pose = jacobian(maps, xyz_map, camera, pose)
    normal = torch.einsum("nki,n,nkj->ij", by_pose, sums.weight, by_pose)
    slope = torch.einsum("nki,nk->i", by_pose, sums.pull)
    eye = torch.eye(6, dtype=normal.dtype, device=normal.device)
    twist = torch.linalg.lstsq(normal + damping * eye, slope[:, None]).solution[:, 0]
    turn = Pose.exp(torch.cat([twist[:3], torch.zeros_like(twist[:3])])).rotation
    return twist, Pose(turn @ pose.rotation, pose.translation + twist[3:])


def refine(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, sigmas: tuple[float, ...]) -> tuple[Pose, int]:
    """GNC-IRLS from one pose ``cam_from_map`` over ``sigmas``; returns the last accepted pose and how many there were.

    ``xyz_map`` (N, 3) float64, ``maps`` of its N points. A new level compares with the cost of the old one, and a
    rejected step never lowers sigma, as in the original.
    """
    level, damping, accepted = 0, LEAST_DAMPING, 0
    cost = smoothed_cost(maps, xyz_map, camera, pose, sigmas[0])
    for _ in range(MOST_STEPS):
        if damping >= MOST_DAMPING:
            break
        _, trial = step(maps, xyz_map, camera, pose, sigmas[level], damping)
        new = smoothed_cost(maps, xyz_map, camera, trial, sigmas[level])
        # totals in single precision, as there: it ends the search where double would find ever smaller gains
        decrease = float(cost.float().sum() - new.float().sum())
        if not decrease > 0:
            damping *= 2
            continue
        quality = decrease / float((cost - new).abs().sum())
        if quality <= LEAST_QUALITY or decrease < LEAST_DECREASE:
            level = min(level + 1, len(sigmas) - 1)
        else:
            damping = max(damping / 2, LEAST_DAMPING)
        pose, cost, accepted = trial, new, accepted + 1
    return pose, accepted


def best_by_msac(
    coarse: LossMaps, peaks: Peaks, xyz_map: Tensor, camera: Camera, found: Hypotheses, share: float
) -> Hypotheses:
    """Of each query's hypotheses the one with the lowest MSAC cost over the ``share`` of points with the best peaks."""
    best = []
    for q in range(len(xyz_map)):
        top = peaks.gain[q].topk(max(1, int(share * len(coarse)))).indices
        maps = _of_query(coarse, q).select(top)
        cost = torch.stack([msac_cost(maps, xyz_map[q, top], camera, pose).sum() for pose in _each(found.poses[q])])
        best.append(torch.where(found.gains[q] > -torch.inf, cost, torch.inf).argmin())
    return found.take(torch.stack(best)[:, None])


def refine_coarse(
    coarse: LossMaps, xyz_map: Tensor, camera: Camera, found: Hypotheses, config: NreConfig
) -> Hypotheses:
    """GNC on the coarse maps for every query's first hypothesis."""
    return _refine_all(coarse, xyz_map, camera, found, schedule(config.coarse_sigma_max, config.coarse_sigma_min))


def refine_fine(
    coarse: LossMaps,
    xyz_map: Tensor,
    camera: Camera,
    found: Hypotheses,
    fine: Sequence[FineMaps],
    config: NreConfig,
) -> tuple[Hypotheses, Windows]:
    """GNC in windows cut once around the coarse pose, at their true places: that fault of the original helps nobody."""
    windows = cut_windows(coarse, xyz_map, camera, found.poses, fine, config.fine_window, config.use_re)
    windows = replace(windows, maps=half_pixel(windows.maps))
    maps = replace(windows.maps, gain=windows.maps.gain[:, 0], origin_cells=windows.maps.origin_cells[:, 0])
    sigmas = schedule(config.fine_sigma_max, config.fine_sigma_min)
    return _refine_all(maps, windows.xyz_map[:, 0], camera, found, sigmas), windows


def _refine_all(
    maps: LossMaps, xyz_map: Tensor, camera: Camera, found: Hypotheses, sigmas: tuple[float, ...]
) -> Hypotheses:
    refined = [
        refine(_of_query(maps, q), xyz_map[q], camera, found.poses[q][0], sigmas)[0] for q in range(len(xyz_map))
    ]
    rotation = torch.stack([pose.rotation for pose in refined])[:, None]
    return Hypotheses(Pose(rotation, torch.stack([pose.translation for pose in refined])[:, None]), found.gains[:, :1])


def _of_query(maps: LossMaps, q: int) -> LossMaps:
    return replace(maps, gain=maps.gain[q], origin_cells=maps.origin_cells[q])


def _each(poses: Pose) -> list[Pose]:
    return [poses[i] for i in range(len(poses.translation))]
