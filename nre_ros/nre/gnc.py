"""Graduated non-convexity: the pose that minimises the NRE, from smooth maps to sharp ones (Eq. 8 and 9).

Each step is a Newton step on the smoothed cost with every point's own 2 x 2 curvature, damped in Marquardt's way
(by the diagonal of the normal matrix), so that neither the scene's unit nor its size matters. Several poses are
refined in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose import hat
from nre_ros.nre.loss_maps import LossMaps
from nre_ros.nre.smoothing import MIN_CURVATURE, Surroundings, smoothed_gain, surroundings

STEPS_PER_SIGMA = 5
STILL_CELLS = 0.02
"""A step that moves the projections by less than this (rms, cells) ends a smoothing level."""
MAX_DAMPING = 1e4


@dataclass(frozen=True)
class Linearisation:
    """The smoothed cost around B poses: ``gain`` (B,) float64, normal matrices ``hessian`` (B, 6, 6), ``slope`` (B, 6)
    (ascent of the gain), ``point_slopes`` (B, N, 6), ``jacobian`` (B, N, 2, 6) of the projections in cells, and the
    cells ``around`` them, good for poses nearby."""

    gain: Tensor
    hessian: Tensor
    slope: Tensor
    point_slopes: Tensor
    jacobian: Tensor
    around: Surroundings


def project_to_cells(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """Cells (B, N, 2), Jacobians (B, N, 2, 6) by the twist of ``pose.perturb``, and a mask (B, N) of points that have
    an image."""
    xyz_cam = pose.transform(xyz_map)
    uv_px, by_point, visible = camera.project_with_jacobian(xyz_cam)
    jacobian = torch.cat([-by_point @ hat(xyz_cam), by_point], -1) / maps.grid.stride
    return maps.grid.cell_from_pixel(uv_px), jacobian, visible


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
    if around is None or not around.cover(xy, seen):
        around = surroundings(maps, xy, sigma)
    smooth = smoothed_gain(maps, xy, sigma, around, min_curvature)
    gain = (smooth.value * visible).sum(-1, dtype=torch.float64)
    weight = (smooth.curvature * visible[..., None, None]).double()
    jacobian = torch.where(visible[..., None, None], jacobian, torch.zeros_like(jacobian))
    point_slopes = torch.einsum("bnji,bnj->bni", jacobian, (smooth.gradient * visible[..., None]).double())
    weighted = (weight @ jacobian).flatten(1, 2)
    hessian = jacobian.flatten(1, 2).mT @ weighted
    return Linearisation(gain, hessian, point_slopes.sum(1), point_slopes, jacobian, around)


def refine(
    maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, sigmas: tuple[float, ...]
) -> tuple[Pose, Tensor]:
    """Minimise the NRE from B start poses ``cam_from_map`` over falling ``sigmas`` (cells); float64 ``xyz_map`` (N, 3).

    Returns B poses and their summed smoothed gains (B,) at the last sigma. A pose that ends with less gain there than
    its start had is given up for the start.
    """
    current, after = poses, torch.empty(0)
    for sigma in sigmas:
        current, after = _ascend(maps, xyz_map, camera, current, sigma)
    before = smoothed_total(maps, xyz_map, camera, poses, sigmas[-1])
    return _choose(after >= before, current, poses), after.maximum(before)


def smoothed_total(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose, sigma: float) -> Tensor:
    """Summed smoothed gain (B,), float64. It ranks poses better than the unsmoothed sum, whose bilinear reading
    between cells is noise that a search over thousands of P3P poses exploits."""
    uv_px, visible = camera.project(poses.transform(xyz_map))
    value = smoothed_gain(maps, _finite_cells(maps, uv_px), sigma).value
    return (value * visible).sum(-1, dtype=torch.float64)


def unsmoothed_gain(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose) -> Tensor:
    """Sum over the points of ceiling minus NRE (B,), float64: Eq. 6 turned over."""
    return point_gains(maps, xyz_map, camera, poses).sum(-1, dtype=torch.float64)


def point_gains(maps: LossMaps, xyz_map: Tensor, camera: Camera, poses: Pose) -> Tensor:
    """Gain of each point (B, N) at its projection; zero behind the camera."""
    uv_px, visible = camera.project(poses.transform(xyz_map))
    return maps.read(_finite_cells(maps, uv_px)) * visible


def _finite_cells(maps: LossMaps, uv_px: Tensor) -> Tensor:
    bound = 10.0 * max(maps.image_cells) + 1000
    return maps.grid.cell_from_pixel(uv_px).clamp(-bound, bound)


def _ascend(maps: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, sigma: float) -> tuple[Pose, Tensor]:
    """Damped Newton steps at one sigma until no pose moves any more."""
    now = linearise(maps, xyz_map, camera, pose, sigma)
    trial = now
    damping = torch.full_like(now.gain, 1e-3)
    for _ in range(STEPS_PER_SIGMA):
        step = _damped_step(now, damping)
        trial_pose = pose.perturb(step)
        trial = linearise(maps, xyz_map, camera, trial_pose, sigma, trial.around)
        better = trial.gain > now.gain
        moved = (now.jacobian @ step[:, None, :, None])[..., 0].square().sum(-1).mean(-1).sqrt()
        pose = _choose(better, trial_pose, pose)
        now = _choose_linearisation(better, trial, now)
        damping = torch.where(better, damping / 4, damping * 10)
        if bool(((moved < STILL_CELLS) | (damping > MAX_DAMPING)).all()):
            break
    return pose, now.gain


def _damped_step(now: Linearisation, damping: Tensor) -> Tensor:
    scale = now.hessian.diagonal(dim1=-2, dim2=-1)
    scale = scale + 1e-12 * scale.amax(-1, keepdim=True) + 1e-300
    damped = now.hessian + torch.diag_embed(scale * damping[:, None])
    # scaled to a unit diagonal first: rotation (rad) and translation (any unit) then weigh alike in the solve
    root = scale.sqrt()
    system = damped / root[:, :, None] / root[:, None, :]
    factor, failed = torch.linalg.cholesky_ex(system)
    step = torch.cholesky_solve((now.slope / root)[..., None], factor)[..., 0] / root
    return torch.where((failed == 0)[:, None] & torch.isfinite(step), step, torch.zeros_like(step))


def _choose(mask: Tensor, a: Pose, b: Pose) -> Pose:
    return Pose(
        torch.where(mask[:, None, None], a.rotation, b.rotation),
        torch.where(mask[:, None], a.translation, b.translation),
    )


def _choose_linearisation(mask: Tensor, a: Linearisation, b: Linearisation) -> Linearisation:
    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (x.dim() - 1)), x, y)

    return Linearisation(
        pick(a.gain, b.gain),
        pick(a.hessian, b.hessian),
        pick(a.slope, b.slope),
        pick(a.point_slopes, b.point_slopes),
        pick(a.jacobian, b.jacobian),
        a.around,
    )


def join_poses(a: Pose, b: Pose) -> Pose:
    """Two batches of poses as one."""
    return Pose(torch.cat([a.rotation, b.rotation]), torch.cat([a.translation, b.translation]))


def sigma_levels(sigma_max: float, sigma_min: float) -> tuple[float, ...]:
    """Sigmas from the first to the last, each about half the one before."""
    levels = [sigma_max]
    while levels[-1] > sigma_min * 1.5:
        levels.append(max(levels[-1] / 2, sigma_min))
    return tuple(levels)
