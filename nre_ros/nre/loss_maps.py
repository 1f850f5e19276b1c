"""Dense loss maps: where in the query image a landmark may be (Eq. 5 to 7 of the NRE paper).

A map is kept as its gain, ``ceiling - loss``: zero where the loss is truncated at the ceiling ln|Omega|, zero
outside the image, and the lower the loss the higher the gain. The NRE of a pose is then
``sum_n ceiling - gain_n(projection_n)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.geometry import CellGrid


@dataclass(frozen=True)
class LossMaps:
    """Truncated loss maps of N points over one image, each stored on a window of the image's cells.

    ``gain`` (N, h, w) float32, at least 0. ``origin_cells`` (N, 2) int64: x, y of each window's first cell.
    ``image_cells`` width and height of the image in cells: what lies beyond costs the ceiling. ``ceiling`` is
    ln|Omega|, with Omega all cells of the image and "out".
    """

    gain: Tensor
    origin_cells: Tensor
    image_cells: tuple[int, int]
    grid: CellGrid
    ceiling: float

    def __len__(self) -> int:
        return len(self.gain)

    def read(self, xy_cells: Tensor) -> Tensor:
        """Gains (B, N) at cell positions (B, N, 2), bilinear, falling to zero over one cell at the border (Eq. 6)."""
        first = torch.floor(xy_cells)
        share = (xy_cells - first).to(self.gain)
        patch, inside = self.patches(first.long(), 2)
        along_x, along_y = (torch.stack([1 - share, share], -1) * inside).unbind(-2)
        return ((patch * along_x[..., None, :]).sum(-1) * along_y).sum(-1)

    def patches(self, first: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Square cut-outs (B, N, size, size), rows then columns, from cell ``first`` (B, N, 2) x, y.

        Also a mask (B, N, 2, size): which columns (0) and rows (1) lie on the stored window; the others hold rubbish.
        """
        count, height, width = self.gain.shape
        bounds = torch.tensor([[width], [height]], device=first.device)
        local = (first - self.origin_cells)[..., None] + torch.arange(size, device=first.device)
        inside = (local >= 0) & (local < bounds)
        columns, rows = local.clamp_min(0).minimum(bounds - 1).unbind(-2)
        rows = torch.arange(count, device=first.device)[:, None] * (height * width) + rows * width
        return self.gain.flatten()[rows[..., :, None] + columns[..., None, :]], inside

    def select(self, index: Tensor) -> LossMaps:
        """The maps of some points only."""
        return LossMaps(self.gain[index], self.origin_cells[index], self.image_cells, self.grid, self.ceiling)


def coarse_loss_maps(descriptors: Tensor, features: Tensor, inverse_temperature: float, grid: CellGrid) -> LossMaps:
    """Loss maps over the whole image (Eq. 5): -ln softmax of ``descriptors`` (N, C) against ``features`` (C, h, w)."""
    height, width = features.shape[-2:]
    logits = (inverse_temperature * descriptors) @ features.flatten(1)
    ceiling = math.log(height * width + 1)
    gain = torch.relu(logits + (ceiling - logits.logsumexp(1, keepdim=True)))
    origin = torch.zeros((len(descriptors), 2), dtype=torch.long, device=features.device)
    return LossMaps(gain.unflatten(1, (height, width)), origin, (width, height), grid, ceiling)


def fine_loss_maps(
    descriptors: Tensor,
    features: Tensor,
    inverse_temperature: float,
    grid: CellGrid,
    centre_px: Tensor,
    prior_mass: Tensor,
    window: int,
) -> LossMaps:
    """Loss maps in square windows of ``window`` + 1 cells around ``centre_px`` (N, 2).

    ``descriptors`` (N, C), ``features`` (C, h, w). ``prior_mass`` (N,) is the probability, by the coarse map, that the
    landmark lies in its window: the density in the window is that mass times the softmax over the window's cells that
    lie on the image. Windows wholly outside the image have no gain.
    """
    depth, height, width = features.shape
    half = window // 2
    size = 2 * half + 1
    centre = grid.cell_from_pixel(centre_px).round()
    bounds = centre.new_tensor([width, height])
    centre = torch.where(torch.isfinite(centre), centre, -size - 1.0).maximum(-size - bounds).minimum(2 * bounds + size)
    first = centre.long() - half
    steps = torch.arange(size, device=features.device)
    cells = first[:, None, :] + steps[:, None]  # (N, size, xy)
    inside = (cells >= 0) & (cells < bounds)
    # cut at the nearest place where the window fits, then read the softmax mask from the true cells
    cells = cells.clamp_min(0).minimum(bounds.long() - 1)
    flat = cells[:, :, None, 1] * width + cells[:, None, :, 0]
    channels_last = features.permute(1, 2, 0).reshape(height * width, depth)
    cut = channels_last[flat.flatten(1)]  # (N, size*size, C)
    logits = (cut @ (inverse_temperature * descriptors)[..., None])[..., 0]
    mask = (inside[:, :, None, 1] & inside[:, None, :, 0]).flatten(1)
    logits = logits.masked_fill(~mask, -torch.inf)
    ceiling = math.log(height * width + 1)
    log_mass = prior_mass.clamp_min(1e-12).log()
    log_norm = logits.logsumexp(1)
    level = torch.where(torch.isfinite(log_norm), log_mass - log_norm + ceiling, torch.zeros_like(log_norm))
    gain = torch.relu(logits + level[:, None])
    return LossMaps(gain.unflatten(1, (size, size)), first, (width, height), grid, ceiling)


def window_mass(coarse: LossMaps, centre_px: Tensor, half_px: float) -> Tensor:
    """Probability (N,), by the coarse maps, of each landmark within ``half_px`` (x and y) of ``centre_px`` (N, 2).

    Cells cut by the window's edge count by the share that lies inside. Truncated cells count as zero.
    """
    reach = half_px / coarse.grid.stride
    size = 2 * math.ceil(reach + 0.5) + 1
    xy = coarse.grid.cell_from_pixel(centre_px)
    bounds = xy.new_tensor(coarse.image_cells)
    xy = torch.where(torch.isfinite(xy), xy, -1e4).maximum(-4 * bounds).minimum(4 * bounds)
    first = xy.round().long() - size // 2
    patch, inside = coarse.patches(first[None], size)
    cells = first[..., None] + torch.arange(size, device=first.device)
    overlap = (reach + 0.5 - (cells - xy[..., None]).abs()).clamp(0, min(1, 2 * reach)).to(patch) * inside[0]
    probability = (patch[0] - coarse.ceiling).exp() * (patch[0] > 0)
    return torch.einsum("nyx,ny,nx->n", probability, overlap[:, 1], overlap[:, 0])


@dataclass(frozen=True)
class Peaks:
    """The best cell of every map: ``xy_cells`` (N, 2), refined within the cell; ``gain`` (N,); ``mass`` (N,) the
    probability of the 3 x 3 cells around it: a guess of how likely the landmark is there."""

    xy_cells: Tensor
    gain: Tensor
    mass: Tensor


def find_peaks(maps: LossMaps) -> Peaks:
    """Minima of the loss maps, to a part of a cell by the centroid of the 3 x 3 probabilities around them."""
    width = maps.gain.shape[-1]
    gain, flat = maps.gain.flatten(1).max(1)
    cell = torch.stack([flat % width, flat // width], -1) + maps.origin_cells
    patch, inside = maps.patches((cell - 1)[None], 3)
    mask = inside[0, :, 0, None, :] & inside[0, :, 1, :, None]
    probability = (patch[0] - maps.ceiling).exp() * mask * (patch[0] > 0)
    mass = probability.sum((-1, -2))
    offsets = torch.tensor([-1.0, 0.0, 1.0], device=gain.device)
    safe = mass.clamp_min(1e-12)
    shift = torch.stack([(probability.sum(-2) * offsets).sum(-1), (probability.sum(-1) * offsets).sum(-1)], -1)
    return Peaks(cell + shift / safe[:, None], gain, mass)
