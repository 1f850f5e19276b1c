"""Loss maps seen through a Gaussian: value, pull and curvature at a position (the smoothed cost of Eq. 8 and 9).

The smoothed gain is a kernel mean, ``sum_q k(q - w) gain(q) / sum_q k(q - w)`` with both sums over the image's cells.
Dividing by the kernel's mass on the image keeps points near the border from being drawn inwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.nre.loss_maps import LossMaps

KERNEL_REACH = 3.5
"""Cells further than this many sigmas weigh below 0.3 % and are left out."""
MARGIN_CELLS = 1
"""How far positions may move before their surroundings are cut anew."""
MIN_CURVATURE = 0.15
"""Floor of the curvature, in units of value / sigma^2, so that Newton steps ascend where a map is flat or convex."""


@dataclass(frozen=True)
class SmoothedGain:
    """At positions (B, N): ``value`` of the smoothed gain (B, N), its ``gradient`` (B, N, 2) by the position in
    cells, and ``curvature`` (B, N, 2, 2): minus the Hessian, its eigenvalues raised to ``min_curvature``."""

    value: Tensor
    gradient: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Surroundings:
    """The maps' cells around some positions, to be read again and again while these move a little.

    ``patch`` (B, N, size, size), rows then columns; ``cells`` (B, N, 2, size) int64, their x (0) and y (1);
    ``on_window`` (B, N, 2, size) where they are stored; ``centre`` (B, N, 2) the positions they were cut around.
    """

    patch: Tensor
    cells: Tensor
    on_window: Tensor
    centre: Tensor

    def cover(self, xy_cells: Tensor, seen: Tensor) -> bool:
        """Whether no position (B, N, 2) of those ``seen`` (B, N) moved further than the margin."""
        moved = (xy_cells - self.centre).abs().amax(-1) > MARGIN_CELLS
        return not bool((moved & seen).any())


def surroundings(maps: LossMaps, xy_cells: Tensor, sigma: float) -> Surroundings:
    """Cut out what a Gaussian of ``sigma`` cells can see from ``xy_cells`` (B, N, 2) or a margin around."""
    radius = math.ceil(KERNEL_REACH * sigma) + MARGIN_CELLS
    size = 2 * radius + 1
    first = _held(maps, xy_cells).round().long() - radius
    patch, on_window = maps.patches(first, size)
    return Surroundings(patch, first[..., None] + torch.arange(size, device=first.device), on_window, xy_cells)


def _held(maps: LossMaps, xy_cells: Tensor) -> Tensor:
    """Positions kept finite; none that could matter is changed."""
    reach = xy_cells.new_tensor(maps.image_cells)
    return xy_cells.maximum(-4 * reach - 100).minimum(5 * reach + 100)


def smoothed_gain(
    maps: LossMaps,
    xy_cells: Tensor,
    sigma: float,
    around: Surroundings | None = None,
    min_curvature: float | None = MIN_CURVATURE,
) -> SmoothedGain:
    """Evaluate all maps at ``xy_cells`` (B, N, 2) under a Gaussian of ``sigma`` cells.

    ``around`` spares the cutting when it covers the positions. Without ``min_curvature`` the Hessian is the true one.
    """
    around = around or surroundings(maps, xy_cells, sigma)
    patch, cells, on_window = around.patch, around.cells, around.on_window
    held = _held(maps, xy_cells)
    reach = torch.tensor(maps.image_cells, device=cells.device)
    offset = (cells - held[..., None]).to(patch)  # (B, N, xy, size)
    kernel = torch.exp(offset * offset * (-0.5 / sigma**2))
    on_image = (cells >= 0) & (cells < reach[:, None])
    mass, centre, spread = _kernel_moments(kernel, offset, on_image, sigma)

    kernel = kernel * on_window / mass[..., None]
    along_x, along_y = torch.stack([kernel, kernel * offset, kernel * offset * offset], -1).unbind(2)
    moments = along_y.mT.contiguous() @ (patch @ along_x.contiguous())  # (B, N, power of y, power of x)

    value = moments[..., 0, 0]
    first_moment = torch.stack([moments[..., 0, 1], moments[..., 1, 0]], -1)
    gradient = (first_moment - value[..., None] * centre) / sigma**2
    hessian = _negative_hessian(moments, value, gradient, centre, spread, sigma)
    if min_curvature is None:
        return SmoothedGain(value, gradient, hessian)
    return SmoothedGain(value, gradient, _floored(hessian, min_curvature * value / sigma**2))


def _kernel_moments(kernel: Tensor, offset: Tensor, on_image: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, mean offset and second moment of the kernel on the image, per axis (B, N, 2).

    Once less than half the kernel's mass is left (the projection lies outside the image) the mass is held there, so
    that the gain fades out: beyond the border a point costs the ceiling, and gets there softly.
    """
    on = kernel * on_image
    mass = on.sum(-1)
    least = torch.full_like(mass, 0.5 * math.sqrt(2 * math.pi) * sigma)
    outside = mass < least
    held = torch.where(outside, least, mass)
    centre = torch.where(outside, torch.zeros_like(mass), (on * offset).sum(-1) / held)
    spread = torch.where(outside, torch.zeros_like(mass), (on * offset * offset).sum(-1) / held)
    return held, centre, spread


def _negative_hessian(
    moments: Tensor, value: Tensor, gradient: Tensor, centre: Tensor, spread: Tensor, sigma: float
) -> Tensor:
    s2 = sigma**2
    second = torch.stack([moments[..., 0, 2], moments[..., 1, 1], moments[..., 1, 1], moments[..., 2, 0]], -1)
    second = second.unflatten(-1, (2, 2))
    # with v = S0 / Z: H v = S2/s4 - v*K2/s4 - (g c' + c g') / s2, K2 the kernel's covariance-free second moment
    kernel_second = centre[..., :, None] * centre[..., None, :]
    kernel_second = kernel_second - torch.diag_embed(torch.diagonal(kernel_second, dim1=-2, dim2=-1))
    plain = (spread == 0) & (centre == 0)  # mass held: it has no derivative, the Gaussian's own -1/s2 remains
    kernel_second = kernel_second + torch.diag_embed(torch.where(plain, torch.full_like(spread, s2), spread))
    mixed = gradient[..., :, None] * centre[..., None, :]
    hessian = (second - value[..., None, None] * kernel_second) / s2**2 - (mixed + mixed.mT) / s2
    return -hessian


def _floored(matrix: Tensor, floor: Tensor) -> Tensor:
    """Symmetric 2 x 2 matrices with eigenvalues raised to at least ``floor``."""
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    mean, half = (a + d) / 2, (a - d) / 2
    radius = (half * half + b * b).sqrt()
    high, low = (mean + radius).maximum(floor), (mean - radius).maximum(floor)
    middle, swing = (high + low) / 2, (high - low) / (2 * radius.clamp_min(1e-20))
    rows = [middle + swing * half, swing * b, swing * b, middle - swing * half]
    return torch.stack(rows, -1).unflatten(-1, (2, 2))
