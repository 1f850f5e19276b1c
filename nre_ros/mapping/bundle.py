"""Bundle adjustment: poses and points under which what was seen falls where it was seen, with a prior on the poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.sparse import bsr_matrix, csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose import hat

ITERATIONS = 30
FIRST_DAMPING = 1e-4
ENOUGH = 1e-4
"""Relative decrease of the cost that is worth another iteration."""


@dataclass(frozen=True)
class Observations:
    """Point ``point`` (O,) lies at ``uv_px`` (O, 2) float64 in view ``view`` (O,), both int64."""

    view: Tensor
    point: Tensor
    uv_px: Tensor

    def __getitem__(self, kept: Tensor) -> Observations:
        return Observations(self.view[kept], self.point[kept], self.uv_px[kept])


@dataclass(frozen=True)
class PosePrior:
    """``map_from_cam`` (K) with the standard deviations of its turns, rad, and of each coordinate of its centre."""

    map_from_cam: Pose
    turn: float
    position: float


@dataclass(frozen=True)
class _Linear:
    """Cost, and of each observation weighted: residual (O, 2), Jacobians by its pose (O, 2, 6) and point (O, 2, 3)."""

    cost: float
    residual: Tensor
    by_pose: Tensor
    by_point: Tensor
    prior: Tensor
    """(K, 6): what each pose is off its prior by, in standard deviations."""


def adjust(
    prior: PosePrior,
    cameras: Sequence[Camera],
    xyz_map: Tensor,
    seen: Observations,
    scale_px: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Pose, Tensor]:
    """``map_from_cam`` (K) and points (N, 3) float64 of least robust error, from the prior's poses and ``xyz_map``.

    Levenberg-Marquardt on the poses alone, the points eliminated (Schur complement; Triggs et al., 1999). Residuals
    have one pixel of noise and Cauchy's loss of ``scale_px``. The prior also holds what images leave open: place,
    direction and scale of the whole.
    """
    cam_from_map, xyz = prior.map_from_cam.inverse(), xyz_map
    damping = FIRST_DAMPING
    now = _linearised(cam_from_map, xyz, prior, cameras, seen, scale_px)
    for done in range(ITERATIONS):
        progress(done, ITERATIONS)
        twist, shift = _step(now, prior, cam_from_map.rotation, seen, len(xyz), damping)
        moved = cam_from_map.perturb(twist)
        tried = _linearised(moved, xyz + shift, prior, cameras, seen, scale_px)
        if tried.cost < now.cost:
            gain = 1 - tried.cost / now.cost
            cam_from_map, xyz, now = moved, xyz + shift, tried
            damping /= 10
            if gain < ENOUGH:
                break
        else:
            damping *= 10
            if damping > 1e6:
                break
    progress(ITERATIONS, ITERATIONS)
    return cam_from_map.inverse(), xyz


def _linearised(
    cam_from_map: Pose, xyz: Tensor, prior: PosePrior, cameras: Sequence[Camera], seen: Observations, scale_px: float
) -> _Linear:
    rotation = cam_from_map.rotation[seen.view]
    xyz_cam = (rotation @ xyz[seen.point][..., None])[..., 0] + cam_from_map.translation[seen.view]
    uv_px, by_cam, visible = _project(xyz_cam, cameras, seen.view)
    off = torch.where(visible[:, None], uv_px - seen.uv_px, 0.0)
    square = off.square().sum(-1) / scale_px**2
    weight = torch.where(visible, 1 / (1 + square), 0.0).sqrt()[:, None]
    by_cam = by_cam * weight[..., None]
    by_pose = torch.cat([-by_cam @ hat(xyz_cam), by_cam], -1)
    turned = (cam_from_map @ prior.map_from_cam).log()
    pulled = turned / _deviations(prior, turned)
    # a point that leaves a view costs as much as one that is far off
    lost = torch.log1p(torch.tensor(100.0, dtype=torch.float64))
    image_cost = scale_px**2 * torch.where(visible, torch.log1p(square), lost).sum()
    cost = float(image_cost + pulled.square().sum())
    return _Linear(cost, off * weight, by_pose, by_cam @ rotation, pulled)


def _project(xyz_cam: Tensor, cameras: Sequence[Camera], view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :meth:`Camera.project_with_jacobian`, each observation (O) by the camera of its view."""
    kinds = list(dict.fromkeys(cameras))
    kind = torch.tensor([kinds.index(camera) for camera in cameras])[view]
    uv_px, jacobian = xyz_cam.new_zeros(len(view), 2), xyz_cam.new_zeros(len(view), 2, 3)
    visible = torch.zeros(len(view), dtype=torch.bool)
    for i, camera in enumerate(kinds):
        mine = kind == i
        uv_px[mine], jacobian[mine], visible[mine] = camera.project_with_jacobian(xyz_cam[mine])
    return uv_px, jacobian, visible


def _step(
    now: _Linear, prior: PosePrior, rotation: Tensor, seen: Observations, points: int, damping: float
) -> tuple[Tensor, Tensor]:
    """Twists (K, 6) of cam_from_map, and shifts (N, 3) of the points."""
    views = len(rotation)
    pose, point = now.by_pose, now.by_point
    hpp = _summed(pose.mT @ pose, seen.view, views)
    hll = _summed(point.mT @ point, seen.point, points)
    hpl = pose.mT @ point
    bp = _summed((pose.mT @ now.residual[..., None])[..., 0], seen.view, views)
    bl = _summed((point.mT @ now.residual[..., None])[..., 0], seen.point, points)
    inverse_deviation = 1 / _deviations(prior, bp)
    hpp = hpp + torch.diag_embed(inverse_deviation.square().expand(views, 6))
    bp = bp + now.prior * inverse_deviation
    hpp, hll = _damped(hpp, damping), _damped(hll, damping)
    hll_inverse = torch.linalg.inv(hll)
    shared = hpl @ hll_inverse[seen.point]
    reduced = _blocks(hpp, torch.arange(views), torch.arange(views), views, views)
    reduced = reduced - _blocks(shared, seen.view, seen.point, views, points) @ (
        _blocks(hpl, seen.view, seen.point, views, points).T
    )
    eliminated = _summed((shared @ bl[seen.point][..., None])[..., 0], seen.view, views)
    solved = splu(csc_matrix(reduced)).solve((bp - eliminated).flatten().numpy())
    twist = -torch.from_numpy(solved).reshape(views, 6)
    pulled = _summed((hpl.mT @ twist[seen.view][..., None])[..., 0], seen.point, points)
    shift = -(hll_inverse @ (bl + pulled)[..., None])[..., 0]
    return twist, shift


def _deviations(prior: PosePrior, like: Tensor) -> Tensor:
    """(6,) of a twist: turns first."""
    return like.new_tensor([prior.turn] * 3 + [prior.position] * 3)


def _damped(blocks: Tensor, damping: float) -> Tensor:
    """Marquardt's scaling, with a floor for what nothing was seen of."""
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    floor = 1e-12 * diagonal.amax(-1, keepdim=True).clamp_min(1e-12)
    return blocks + torch.diag_embed(damping * diagonal + floor)


def _summed(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sums (count, ...) of rows by owner."""
    return values.new_zeros((count, *values.shape[1:])).index_add_(0, owner, values)


def _blocks(values: Tensor, row: Tensor, column: Tensor, rows: int, columns: int) -> bsr_matrix:
    """Sparse matrix of blocks (B, h, w) at block rows and columns (B,), each pair once."""
    order = torch.argsort(row * columns + column)
    start = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(row, minlength=rows).cumsum(0)])
    height, width = values.shape[1:]
    return bsr_matrix(
        (values[order].contiguous().numpy(), column[order].numpy(), start.numpy()),
        shape=(rows * height, columns * width),
    )
