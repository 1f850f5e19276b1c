"""Graduated non-convexity: the pose that minimises the NRE, from smooth maps to sharp ones (Eq. 8 and 9).

Each step is a Newton step on the smoothed cost with every point's own 2 x 2 curvature, damped in Marquardt's way
(by the diagonal of the normal matrix), so that neither the scene's unit nor its size matters. Several poses of several
queries are refined in one batch: poses are (..., H), points (..., N), with the same leading dimensions as the maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.geometry import Camera, Pose
from nre_ros.nre.loss_maps import LossMaps
from nre_ros.nre.smoothing import (
    MIN_CURVATURE,
    SmoothedGain,
    Surroundings,
    smoothed_gain,
    smoothed_value,
    surroundings,
)

STEPS_PER_SIGMA = 8
STILL_CELLS = 0.02
"""A step that moves the projections by less than this (rms, cells) ends a smoothing level."""
MAX_DAMPING = 1e4


@dataclass(frozen=True)
class Linearisation:
    """The smoothed cost around poses (..., H): ``gain`` (..., H), normal matrix ``hessian`` (..., H, 6, 6), ``slope``
    (..., H, 6), the ascent of the gain, all float64; with the ``jacobian`` (..., H, N, 2, 6) of the projections in
    cells, what is ``smooth`` there and the cells ``around``, good for poses nearby."""

    gain: Tensor
    hessian: Tensor
    slope: Tensor
    jacobian: Tensor
    smooth: SmoothedGain
    around: Surroundings

    def point_slopes(self) -> Tensor:
        """Each point's share (..., H, N, 6) of the slope."""
        return (self.jacobian * self.smooth.gradient[..., None]).sum(-2)


def project_to_cells(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """Cells (..., H, N, 2) of points (..., N, 3), Jacobians (..., H, N, 2, 6) by the twist of ``pose.perturb``, and a
    mask (..., H, N) of points that have an image."""
    xyz_cam = pose.transform(xyz_map[..., None, :, :])
    uv_px, by_point, visible = camera.project_with_jacobian(xyz_cam)
    by_point = by_point / maps.grid.stride
    by_rotation = torch.linalg.cross(xyz_cam[..., None, :].expand_as(by_point), by_point)
    return maps.grid.cell_from_pixel(uv_px), torch.cat([by_rotation, by_point], -1), visible


def linearise(
    maps: LossMaps,
    xyz_map: Tensor,
    camera: Camera,
    pose: Pose,
    sigma: float,
    around: Surroundings | None = None,
    min_curvature: float | None = MIN_CURVATURE,
) -> Linearisation:
    """Points behind the camera count in neither the cost nor the normal equations."""
    xy, jacobian, visible = project_to_cells(maps, xyz_map, camera, pose)
    size = xy.new_tensor(maps.image_cells)
    seen = visible & ((xy > -4 * sigma) & (xy < size + 4 * sigma)).all(-1)
    if around is None or xy.is_cuda or not around.cover(xy, seen):
        around = surroundings(maps, xy, sigma)
    smooth = smoothed_gain(maps, xy, sigma, around, min_curvature)
    jacobian = jacobian.masked_fill(~visible[..., None, None], 0)

    by_x, by_y = jacobian.unbind(-2)  # (..., N, 6)
    xx, xy_, yy = (c.to(by_x)[..., None] for c in (smooth.xx, smooth.xy, smooth.yy))
    hessian = by_x.mT @ (xx * by_x + xy_ * by_y) + by_y.mT @ (xy_ * by_x + yy * by_y)
    slope = by_x.mT @ smooth.along_x.to(by_x)[..., None] + by_y.mT @ smooth.along_y.to(by_x)[..., None]
    gain = (smooth.value * visible).sum(-1, dtype=torch.float64)
    return Linearisation(gain, hessian, slope[..., 0], jacobian, smooth, around)


def refine(
    maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, sigmas: tuple[float, ...]
) -> tuple[Pose, Tensor]:
    """Minimise the NRE from start poses ``cam_from_map`` (..., H) over falling ``sigmas`` (cells); float64 ``xyz_map``
    (..., N, 3).

    Returns poses (..., H) and their summed smoothed gains (..., H) at the last sigma. A pose that ends with less gain
    there than its start had is given up for the start.
    """
    current, after = poses, torch.empty(0)
    for sigma in sigmas:
        current, after = _ascend(maps, xyz_map, camera, current, sigma)
    if len(sigmas) == 1:  # no step was taken that lost any
        return current, after
    before = smoothed_total(maps, xyz_map, camera, poses, sigmas[-1])
    return choose(after >= before, current, poses), after.maximum(before)


def smoothed_total(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, sigma: float) -> Tensor:
    """Summed smoothed gain (..., H), float64. It ranks poses better than the unsmoothed sum, whose bilinear reading
    between cells is noise that a search over thousands of P3P poses exploits."""
    xy, visible = _cells(maps, xyz_map, camera, poses)
    return (smoothed_value(maps, xy, sigma) * visible).sum(-1, dtype=torch.float64)


def point_gains(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose) -> Tensor:
    """Ceiling minus NRE (Eq. 6) of each point (..., H, N) at its projection; zero behind the camera."""
    xy, visible = _cells(maps, xyz_map, camera, poses)
    return maps.read(xy) * visible


def nearest_gains(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose) -> Tensor:
    """As :func:`point_gains`, of the cells that the projections lie in: quicker and coarser."""
    xy, visible = _cells(maps, xyz_map, camera, poses)
    return maps.read_nearest(xy) * visible


def _cells(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose) -> tuple[Tensor, Tensor]:
    uv_px, visible = camera.project(poses.transform(xyz_map[..., None, :, :]))
    bound = 10.0 * max(maps.image_cells) + 1000
    return maps.grid.cell_from_pixel(uv_px).clamp(-bound, bound), visible


def _ascend(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, sigma: float) -> tuple[Pose, Tensor]:
    """Damped Newton steps at one sigma until no pose moves any more (on CUDA all steps: a look would wait for it)."""
    now = linearise(maps, xyz_map, camera, pose, sigma)
    gain, hessian, slope, around = now.gain, now.hessian, now.slope, now.around
    motion = now.jacobian.flatten(-3, -2)
    motion = motion.mT @ motion / len(maps)  # step' motion step: mean squared move of the projections
    damping = torch.full_like(gain, 1e-3)
    still = torch.zeros_like(gain, dtype=torch.bool)
    for _ in range(STEPS_PER_SIGMA):
        step = _damped_step(hessian, slope, damping)
        trial_pose = pose.perturb(step)
        trial = linearise(maps, xyz_map, camera, trial_pose, sigma, around)
        around = trial.around
        better = (trial.gain > gain) & ~still
        pose = choose(better, trial_pose, pose)
        gain = torch.where(better, trial.gain, gain)
        hessian = torch.where(better[..., None, None], trial.hessian, hessian)
        slope = torch.where(better[..., None], trial.slope, slope)
        damping = torch.where(better, damping / 4, damping * 10)
        moved = (step[..., None, :] @ motion @ step[..., None])[..., 0, 0]
        still |= (moved < STILL_CELLS**2) | (damping > MAX_DAMPING)
        if not gain.is_cuda and bool(still.all()):
            break
    return pose, gain


def _damped_step(hessian: Tensor, slope: Tensor, damping: Tensor) -> Tensor:
    scale = hessian.diagonal(dim1=-2, dim2=-1)
    scale = scale + 1e-12 * scale.amax(-1, keepdim=True) + 1e-300
    # scaled to a unit diagonal first: rotation (rad) and translation (any unit) then weigh alike in the solve
    root = scale.sqrt()
    system = hessian / root[..., :, None] / root[..., None, :]
    system = system + torch.diag_embed(damping[..., None].expand_as(root))
    factor, failed = torch.linalg.cholesky_ex(system)
    step = torch.cholesky_solve((slope / root)[..., None], factor)[..., 0] / root
    return torch.where((failed == 0)[..., None] & torch.isfinite(step), step, torch.zeros_like(step))


def choose(mask: Tensor, a: Pose, b: Pose) -> Pose:
    """``a`` where ``mask`` (..., H), else ``b``."""
    return Pose(
        torch.where(mask[..., None, None], a.rotation, b.rotation),
        torch.where(mask[..., None], a.translation, b.translation),
    )


def sigma_levels(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """Sigmas from the first to the last, each about half the one before."""
    levels = [sigma_max]
    while levels[-1] > sigma_min * 1.5:
        levels.append(max(levels[-1] / 2, sigma_min))
    return tuple(levels)
