"""Loss maps seen through a Gaussian: value, pull and curvature at a position (the smoothed cost of Eq. 8 and 9).

The smoothed gain is ``sum_q k(q - w) gain(q)`` over the image's cells, divided by the geometric mean of the kernel's
whole mass and its mass on the image: see :data:`BORDER_POWER`.
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
BORDER_POWER = 0.5
"""The power of the kernel's mass on the image in the divisor. With 0, as in the original, points near the border are
drawn inwards, which moves the camera back; with 1, a kernel mean, they are drawn outwards. Measured at stride 16 over
sigma 0.6 and 1 (camera's mean move, points 8 units away): -1.1 and -1.9 cm with 0, +1.2 and +4.1 with 1, -0.15 and
+0.5 with a half; it does not shrink with the number of points."""
MIN_CURVATURE = 0.15
"""Floor of the curvature, in units of value / sigma^2, so that Newton steps ascend where a map is flat or convex."""


@dataclass(frozen=True)
class SmoothedGain:
    """At positions (..., H, N): ``value`` of the smoothed gain, its gradient ``along_x`` and ``along_y`` by the
    position in cells, and the curvature ``xx``, ``xy``, ``yy``: minus the Hessian, positive definite if floored."""

    value: Tensor
    along_x: Tensor
    along_y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @property
    def gradient(self) -> Tensor:
        """(..., H, N, 2)."""
        return torch.stack([self.along_x, self.along_y], -1)

    @property
    def curvature(self) -> Tensor:
        """(..., H, N, 2, 2)."""
        return torch.stack([self.xx, self.xy, self.xy, self.yy], -1).unflatten(-1, (2, 2))


@dataclass(frozen=True)
class Surroundings:
    """The maps' cells around some positions, to be read again and again while these move a little.

    ``patch`` (..., H, N, rows, columns), zero off the stored window; ``first`` (..., H, N, 2) x, y of its first cell;
    ``on_image`` (..., H, N, 2, size) 1 for columns (0) and rows (1) on the image, else 0; ``centre`` (..., H, N, 2) the
    positions they were cut around; ``whole`` if all that is stored was cut.
    """

    patch: Tensor
    first: Tensor
    on_image: Tensor
    centre: Tensor
    whole: bool

    def cover(self, xy_cells: Tensor, seen: Tensor) -> bool:
        """Whether no position (..., H, N, 2) of those ``seen`` (..., H, N) moved further than the margin."""
        if self.whole:
            return True
        moved = (xy_cells - self.centre).abs().amax(-1) > MARGIN_CELLS
        return not bool((moved & seen).any())


def surroundings(maps: LossMaps, xy_cells: Tensor, sigma: float) -> Surroundings:
    """Cut out what a Gaussian of ``sigma`` cells can see from ``xy_cells`` (..., H, N, 2) or a margin around."""
    size = 2 * (math.ceil(KERNEL_REACH * sigma) + MARGIN_CELLS) + 1
    height, width = maps.gain.shape[-2:]
    dtype = torch.promote_types(maps.gain.dtype, torch.float32)
    if height == width and height <= size:
        size, whole = width, True
        first = maps.origin_cells[..., None, :, :].expand(xy_cells.shape)
        patch = maps.gain[..., None, :, :, :].to(dtype).expand(*xy_cells.shape[:-1], size, size)
    else:
        whole = False
        first = _held(maps, xy_cells).round().long() - size // 2
        patch, on_window = maps.patches(first, size)
        patch = patch.to(dtype) * (on_window[..., 1, :, None] & on_window[..., 0, None, :])
    cells = first[..., None] + torch.arange(size, device=first.device)
    reach = torch.tensor(maps.image_cells, device=cells.device)[:, None]
    on_image = ((cells >= 0) & (cells < reach)).to(patch)
    return Surroundings(patch, first, on_image, xy_cells, whole)


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
    """Evaluate all maps (..., N) at ``xy_cells`` (..., H, N, 2) under a Gaussian of ``sigma`` cells.

    ``around`` spares the cutting when it covers the positions. Without ``min_curvature`` the Hessian is the true one.
    """
    around = around or surroundings(maps, xy_cells, sigma)
    start = (around.first - _held(maps, xy_cells)).to(around.patch)
    offset = start[..., None] + torch.arange(around.on_image.shape[-1], device=start.device)
    kernel = torch.exp(offset * offset * (-0.5 / sigma**2)) * around.on_image
    slope = kernel * offset
    powers = torch.stack([kernel, slope, slope * offset], -2)  # (..., N, axis, power, cell)
    mass, centre, spread = _kernel_moments(powers.sum(-1), sigma)

    along_x, along_y = powers.unbind(-3)
    moments = (along_y @ around.patch) @ along_x.mT  # (..., N, power of y, power of x)
    scale = (mass[..., 0] * mass[..., 1]) ** -BORDER_POWER * _full_mass(sigma) ** (2 * BORDER_POWER - 2)
    moments = moments * scale[..., None, None]
    return _derivatives(moments, centre, spread, sigma, min_curvature)


def smoothed_value(maps: LossMaps, xy_cells: Tensor, sigma: float) -> Tensor:
    """The value (..., H, N) of :func:`smoothed_gain` alone."""
    around = surroundings(maps, xy_cells, sigma)
    start = (around.first - _held(maps, xy_cells)).to(around.patch)
    offset = start[..., None] + torch.arange(around.on_image.shape[-1], device=start.device)
    kernel = torch.exp(offset * offset * (-0.5 / sigma**2)) * around.on_image
    mass = kernel.sum(-1).clamp_min(_least_mass(sigma))
    mass = mass**BORDER_POWER * _full_mass(sigma) ** (1 - BORDER_POWER)
    along_x, along_y = (kernel / mass[..., None]).unbind(-2)
    return ((around.patch @ along_x[..., None])[..., 0] * along_y).sum(-1)


def _full_mass(sigma: float) -> float:
    """Mass of the kernel along one axis when all of it lies on the image."""
    return math.sqrt(2 * math.pi) * sigma


def _least_mass(sigma: float) -> float:
    """Once less than half the kernel's mass is left (the projection lies outside the image) the mass is held there, so
    that the gain fades out: beyond the border a point costs the ceiling, and gets there softly."""
    return 0.5 * _full_mass(sigma)


def _kernel_moments(sums: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, mean offset and second moment of the kernel on the image, per axis (..., N, 2)."""
    mass = sums[..., 0]
    outside = mass < _least_mass(sigma)
    held = mass.clamp_min(_least_mass(sigma))
    # a held mass has no derivative: the Gaussian's own -1/s2 remains
    centre = (sums[..., 1] / held).masked_fill(outside, 0)
    spread = (sums[..., 2] / held).masked_fill(outside, sigma**2)
    return held, centre, spread


def _derivatives(
    moments: Tensor, centre: Tensor, spread: Tensor, sigma: float, min_curvature: float | None
) -> SmoothedGain:
    """From the moments sum k gain offset^i offset^j, divided by what :data:`BORDER_POWER` says, to value, gradient and
    curvature. The gradient of the mass Z is Z c / s2, with c the kernel's mean offset on the image."""
    s2, power = sigma**2, BORDER_POWER
    value = moments[..., 0, 0]
    cx, cy = (power * centre).unbind(-1)
    gx = (moments[..., 0, 1] - value * cx) / s2
    gy = (moments[..., 1, 0] - value * cy) / s2
    own = value[..., None] * (s2 + power * (spread - s2 + (power - 1) * centre * centre))
    xx = (2 * gx * cx - (moments[..., 0, 2] - own[..., 0]) / s2) / s2
    yy = (2 * gy * cy - (moments[..., 2, 0] - own[..., 1]) / s2) / s2
    xy = (gx * cy + gy * cx - (moments[..., 1, 1] - value * cx * cy) / s2) / s2
    if min_curvature is not None:
        xx, xy, yy = _floored(xx, xy, yy, min_curvature / s2 * value)
    return SmoothedGain(value, gx, gy, xx, xy, yy)


def _floored(a: Tensor, b: Tensor, d: Tensor, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Symmetric matrices [[a, b], [b, d]] with eigenvalues raised to at least ``floor``."""
    mean, half = (a + d) / 2, (a - d) / 2
    radius = torch.hypot(half, b)
    high, low = (mean + radius).maximum(floor), (mean - radius).maximum(floor)
    middle, swing = (high + low) / 2, (high - low) / (2 * radius).clamp_min(1e-20)
    return middle + swing * half, swing * b, middle - swing * half
