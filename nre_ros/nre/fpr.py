"""Feature-metric refinement: a pose aligned by the dense features themselves, without loss maps.

FPR (Eq. 12 of the NRE paper) minimises ``sum_n rho(|h_n - H(w_n)|)``, with h_n a landmark's descriptor and H the
query's features, read bilinearly at its projection. With several levels from coarse to fine, per-pixel confidences
and a damping per level it is the alignment of PixLoc (Sarlin et al., CVPR 2021).

Three things differ from PixLoc's code: a step that makes the cost worse is not taken, but tried again under more
damping; landmarks that leave the image cost as much as an unrelated descriptor, so that nothing is gained by looking
away; and the scale of the robust loss is relative to the descriptors' length, so that raw descriptors can be aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.geometry import Camera, CellGrid, Pose

LOSS_SCALE = 0.1
"""Of the robust loss 2 ln(1 + x / 2), as a share of the descriptors' length; PixLoc's, whose descriptors are unit."""
BORDER_CELLS = 2
"""Projections nearer to the border of the features count as out of the image."""
MIN_POINTS = 10
STEPS = 30
"""Most steps a level; a rejected one counts."""
STILL_CELLS = 0.005
"""A step that moves the projections by less than this (rms) ends a level."""
WORSE, BETTER = 10.0, 0.3
"""Factors of the damping after a step that was rejected, and one that was taken; it never falls below the level's."""
DAMPING = 1e-3
MOST_DAMPING = 1e6


@dataclass(frozen=True)
class FeatureLevel:
    """The query at one stride, and what N landmarks look like there.

    ``values`` (C, h, w) on ``grid``; ``descriptors`` (N, C). ``confidence`` (h, w) of the query's cells and
    ``certainty`` (N,) of the descriptors, 0 to 1; None: all alike. ``damping`` (6,), rotation first: shares of the
    normal matrix's diagonal that hold the pose back; None: :data:`DAMPING`.
    """

    values: Tensor
    grid: CellGrid
    descriptors: Tensor
    confidence: Tensor | None = None
    certainty: Tensor | None = None
    damping: Tensor | None = None


@dataclass(frozen=True)
class Residuals:
    """At one pose: ``difference`` (N, C) read less expected; ``gradient`` (N, C, 2) of the read descriptor by the
    cell; ``jacobian`` (N, 2, 6) of the cell by the twist of ``pose.perturb``; ``weight`` (N,); ``inside`` (N,)."""

    difference: Tensor
    gradient: Tensor
    jacobian: Tensor
    weight: Tensor
    inside: Tensor


class Reader:
    """Reads the features of one level; their cells lie together in memory, which is what takes the time."""

    def __init__(self, level: FeatureLevel) -> None:
        self.level = level
        self.height, self.width = level.values.shape[-2:]
        self.scale2 = LOSS_SCALE**2 * float(level.descriptors.square().sum(-1).mean().clamp_min(1e-12))
        channels = level.values if level.confidence is None else torch.cat([level.values, level.confidence[None]])
        self._cells = channels.permute(1, 2, 0).reshape(self.height * self.width, -1).contiguous()

    def residuals(self, xyz_map: Tensor, camera: Camera, pose: Pose) -> Residuals:
        """Of landmarks (N, 3) seen from ``pose``, ``cam_from_map``."""
        level = self.level
        xyz_cam = pose.transform(xyz_map)
        uv_px, by_point, visible = camera.project_with_jacobian(xyz_cam)
        by_point = by_point / level.grid.stride
        by_rotation = torch.linalg.cross(xyz_cam[:, None].expand_as(by_point), by_point)
        jacobian = torch.cat([by_rotation, by_point], -1)

        xy = level.grid.cell_from_pixel(uv_px)
        last = xy.new_tensor([self.width - 1, self.height - 1])
        inside = visible & ((xy >= BORDER_CELLS) & (xy <= last - BORDER_CELLS)).all(-1)
        read, gradient = self._read(torch.where(inside[:, None], xy, last / 2))
        weight = inside.to(read)
        if level.confidence is not None:
            weight = weight * read[:, -1].clamp(0, 1)
            read, gradient = read[:, :-1], gradient[:, :-1]
        if level.certainty is not None:
            weight = weight * level.certainty.to(weight)
        return Residuals(read - level.descriptors.to(read), gradient, jacobian, weight, inside)

    def loss(self, at: Residuals) -> Tensor:
        """Robust loss (N,) in units of the scale; that of an unrelated descriptor for landmarks out of the image."""
        x = at.difference.square().sum(-1) / self.scale2
        unrelated = torch.full_like(x, 2 / LOSS_SCALE**2)
        return 2 * torch.log1p(torch.where(at.inside, x, unrelated) / 2)

    def normal_equations(self, at: Residuals) -> tuple[Tensor, Tensor]:
        """Matrix (6, 6) and slope (6,) of half the weighted squares, float64."""
        x = at.difference.square().sum(-1) / self.scale2
        weight = (at.weight / (1 + x / 2))[:, None]
        curvature = at.gradient.mT @ at.gradient * weight[..., None]
        pull = (at.gradient.mT @ at.difference[..., None])[..., 0] * weight
        jacobian = at.jacobian.double()
        hessian = (jacobian.mT @ curvature.double() @ jacobian).sum(0)
        return hessian, (jacobian.mT @ pull.double()[..., None])[..., 0].sum(0)

    def _read(self, xy_cells: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, C) between cells, and their central differences (N, C, 2) over one cell to either side.

        The differences see further than the slope between two cells, which jumps at every cell.
        """
        first = torch.floor(xy_cells)
        share = (xy_cells - first).to(self._cells)
        rest, zero = 1 - share, torch.zeros_like(share)
        at = torch.stack([zero, rest, share, zero], -1)
        along = torch.stack([-rest, -share, rest, share], -1) / 2
        steps = torch.arange(-1, 3, device=first.device)
        columns, rows = (first.long()[..., None] + steps).unbind(1)
        columns, rows = columns.clamp(0, self.width - 1), rows.clamp(0, self.height - 1)
        index = (rows[:, :, None] * self.width + columns[:, None, :]).flatten(1)
        patch = self._cells[index]  # (N, 16, C)
        mix = torch.stack(
            [
                (at[:, 1, :, None] * at[:, 0, None, :]).flatten(1),
                (at[:, 1, :, None] * along[:, 0, None, :]).flatten(1),
                (along[:, 1, :, None] * at[:, 0, None, :]).flatten(1),
            ],
            1,
        )
        read = mix @ patch  # (N, 3, C)
        return read[:, 0], read[:, 1:].mT


def align_features(levels: Sequence[FeatureLevel], xyz_map: Tensor, camera: Camera, start: Pose) -> Pose | None:
    """The pose ``cam_from_map`` near ``start`` that aligns landmarks (N, 3), by one level after the other.

    None when fewer than :data:`MIN_POINTS` landmarks have an image, at the start or on the way.
    """
    pose: Pose | None = start
    xyz_map = xyz_map.double()
    for level in levels:
        if pose is not None:
            pose = _descend(Reader(level), xyz_map, camera, pose)
    return pose


def _descend(reader: Reader, xyz_map: Tensor, camera: Camera, pose: Pose) -> Pose | None:
    """Levenberg-Marquardt on one level. The weights of a comparison are those before the step: a step that moves
    landmarks to where the network is unsure gains nothing by that."""
    least = reader.level.damping
    least = torch.full((6,), DAMPING).to(xyz_map) if least is None else least.to(xyz_map)
    here, factor = reader.residuals(xyz_map, camera, pose), 1.0
    if int(here.inside.sum()) < MIN_POINTS:
        return None
    for _ in range(STEPS):
        hessian, slope = reader.normal_equations(here)
        step = _damped_step(hessian, slope, least, factor)
        trial_pose = pose.perturb(step)
        trial = reader.residuals(xyz_map, camera, trial_pose)
        weight = _weights(here)
        moved = float((here.jacobian[here.inside] @ step).square().sum(-1).mean().sqrt())
        if float((weight * (reader.loss(trial) - reader.loss(here))).sum()) < 0:
            pose, here, factor = trial_pose, trial, max(factor * BETTER, 1.0)
            if int(here.inside.sum()) < MIN_POINTS:
                return None
        else:
            factor *= WORSE
        if moved < STILL_CELLS or factor > MOST_DAMPING:
            break
    return pose


def _weights(here: Residuals) -> Tensor:
    """Weights (N,) of the losses; landmarks out of the image weigh as those in it do on average."""
    outside = here.weight.sum() / here.inside.sum().clamp_min(1)
    return torch.where(here.inside, here.weight, outside)


def _damped_step(hessian: Tensor, slope: Tensor, least: Tensor, factor: float) -> Tensor:
    """Marquardt's: by shares of the diagonal, so that no unit matters."""
    scale = hessian.diagonal()
    root = (scale + 1e-12 * scale.amax() + 1e-300).sqrt()
    system = hessian / root[:, None] / root + torch.diag(least * factor)
    factorised, failed = torch.linalg.cholesky_ex(system)
    step = -torch.cholesky_solve((slope / root)[:, None], factorised)[:, 0] / root
    return step if int(failed) == 0 and bool(torch.isfinite(step).all()) else torch.zeros_like(step)
