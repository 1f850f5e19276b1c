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

    ``gain`` (..., N, h, w), at least 0, any floating dtype. ``origin_cells`` (..., N, 2) int64: x, y of each window's
    first cell. Leading dimensions are a batch of queries. ``image_cells`` width and height of the image in cells: what
    lies beyond costs the ceiling. ``ceiling`` is ln|Omega|, with Omega all cells of the image and "out".
    """

    gain: Tensor
    origin_cells: Tensor
    image_cells: tuple[int, int]
    grid: CellGrid
    ceiling: float

    def __len__(self) -> int:
        """Points of one query."""
        return self.gain.shape[-3]

    def read(self, xy_cells: Tensor) -> Tensor:
        """Gains (..., H, N) at cell positions (..., H, N, 2), bilinear, falling to zero over one cell at the border
        (Eq. 6)."""
        first = torch.floor(xy_cells)
        patch, inside = self.patches(first.long(), 2)
        share = (xy_cells - first).to(torch.promote_types(patch.dtype, torch.float32))
        along_x, along_y = (torch.stack([1 - share, share], -1) * inside).unbind(-2)
        return ((patch * along_x[..., None, :]).sum(-1) * along_y).sum(-1)

    def read_nearest(self, xy_cells: Tensor) -> Tensor:
        """Gains (..., H, N) of the cells that positions (..., H, N, 2) lie in; zero outside."""
        patch, inside = self.patches(torch.floor(xy_cells + 0.5).long(), 1)
        return patch[..., 0, 0] * inside[..., 0].all(-1)

    def patches(self, first: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Square cut-outs (..., H, N, size, size), rows then columns, from cell ``first`` (..., H, N, 2) x, y.

        Also a mask (..., H, N, 2, size): which columns (0) and rows (1) lie on the stored window; the others hold
        rubbish.
        """
        height, width = self.gain.shape[-2:]
        bounds = torch.tensor([[width], [height]], device=first.device)
        local = (first - self.origin_cells[..., None, :, :])[..., None] + torch.arange(size, device=first.device)
        inside = (local >= 0) & (local < bounds)
        columns, rows = local.clamp_min(0).minimum(bounds - 1).unbind(-2)
        batch = self.gain.shape[:-2]
        start = torch.arange(math.prod(batch), device=first.device).view(*batch[:-1], 1, batch[-1], 1)
        rows = start * (height * width) + rows * width
        return self.gain.flatten()[rows[..., :, None] + columns[..., None, :]], inside

    def select(self, index: Tensor) -> LossMaps:
        """The maps of some points only."""
        return LossMaps(
            self.gain[..., index, :, :], self.origin_cells[..., index, :], self.image_cells, self.grid, self.ceiling
        )

    def narrowed(self, nats: float) -> LossMaps:
        """Of each map only what is within ``nats`` of its best cell, as high as before there: a softer one-hot, without
        the slopes and lesser peaks further down that pull all poses off a little."""
        top = self.gain.amax((-1, -2), keepdim=True)
        kept = top.clamp(max=nats)
        gain = torch.relu(self.gain - (top - kept)) * (top / kept.clamp_min(1e-6))
        return LossMaps(gain, self.origin_cells, self.image_cells, self.grid, self.ceiling)

    def one_hot(self) -> LossMaps:
        """All gain, the ceiling, at each map's best cell and none elsewhere: NRE on these is the robust reprojection
        error of the classical matches (Eq. 11)."""
        flat = self.gain.flatten(-2)
        best, cell = flat.max(-1, keepdim=True)
        hot = torch.zeros_like(flat).scatter_(-1, cell, self.ceiling * (best > 0).to(flat))
        return LossMaps(hot.view_as(self.gain), self.origin_cells, self.image_cells, self.grid, self.ceiling)


def coarse_loss_maps(descriptors: Tensor, features: Tensor, inverse_temperature: float, grid: CellGrid) -> LossMaps:
    """Loss maps over the whole image (Eq. 5): -ln softmax of ``descriptors`` (N, C) against ``features`` (C, h, w)."""
    height, width = features.shape[-2:]
    logits = (inverse_temperature * descriptors) @ features.flatten(1)
    ceiling = math.log(height * width + 1)
    gain = torch.relu_(logits + (ceiling - logits.logsumexp(1, keepdim=True)))
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
    height, width = features.shape[-2:]
    half = window // 2
    size = 2 * half + 1
    centre = grid.cell_from_pixel(centre_px).round()
    bounds = centre.new_tensor([width, height])
    centre = torch.where(torch.isfinite(centre), centre, -size - 1.0).maximum(-size - bounds).minimum(2 * bounds + size)
    first = centre.long() - half
    steps = torch.arange(size, device=features.device)
    cells = first[:, None, :] + steps[:, None]  # (N, size, xy)
    inside = (cells >= 0) & (cells < bounds)
    cells = cells.clamp_min(0).minimum(bounds.long() - 1)
    flat = (cells[:, :, None, 1] * width + cells[:, None, :, 0]).flatten(1)
    logits = _correlate(inverse_temperature * descriptors, features, flat)
    mask = (inside[:, :, None, 1] & inside[:, None, :, 0]).flatten(1)
    logits = logits.masked_fill(~mask, -torch.inf)
    ceiling = math.log(height * width + 1)
    log_mass = prior_mass.clamp_min(1e-12).log()
    log_norm = logits.logsumexp(1)
    level = torch.where(torch.isfinite(log_norm), log_mass - log_norm + ceiling, torch.zeros_like(log_norm))
    gain = torch.relu_(logits + level[:, None])
    return LossMaps(gain.unflatten(1, (size, size)), first, (width, height), grid, ceiling)


def _correlate(descriptors: Tensor, features: Tensor, cells: Tensor) -> Tensor:
    """Dot products (N, M) of descriptors (N, C) with the features (C, h, w) of each one's own cells (N, M).

    A few points at a time on the CPU: the features cut out then stay in the cache, and the memory small.
    """
    channels_last = features.permute(1, 2, 0).reshape(-1, len(features)).contiguous()
    chunk = max(len(cells), 1) if cells.is_cuda else 64
    parts = [
        (each[:, None] @ channels_last.index_select(0, where.flatten()).view(*where.shape, -1).mT)[:, 0]
        for each, where in zip(descriptors.split(chunk), cells.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def window_mass(coarse: LossMaps, centre_px: Tensor, half_px: float) -> Tensor:
    """Probability (..., H, N), by the coarse maps, of each landmark within ``half_px`` (x and y) of ``centre_px``
    (..., H, N, 2).

    Cells cut by the window's edge count by the share that lies inside. Truncated cells count as zero.
    """
    reach = half_px / coarse.grid.stride
    size = 2 * math.ceil(reach + 0.5) + 1
    xy = coarse.grid.cell_from_pixel(centre_px)
    bounds = xy.new_tensor(coarse.image_cells)
    xy = torch.where(torch.isfinite(xy), xy, -1e4).maximum(-4 * bounds).minimum(4 * bounds)
    first = xy.round().long() - size // 2
    patch, inside = coarse.patches(first, size)
    cells = first[..., None] + torch.arange(size, device=first.device)
    probability = (patch.float() - coarse.ceiling).exp() * (patch > 0)
    overlap = (reach + 0.5 - (cells - xy[..., None]).abs()).clamp(0, min(1, 2 * reach)).to(probability) * inside
    return ((probability @ overlap[..., 0, :, None])[..., 0] * overlap[..., 1, :]).sum(-1)


@dataclass(frozen=True)
class Peaks:
    """The best cell of every map: ``xy_cells`` (..., N, 2), refined within the cell; ``gain`` (..., N); ``mass``
    (..., N) the probability of the 3 x 3 cells around it: a guess of how likely the landmark is there."""

    xy_cells: Tensor
    gain: Tensor
    mass: Tensor


def find_peaks(maps: LossMaps) -> Peaks:
    """Minima of the loss maps, to a part of a cell by the centroid of the 3 x 3 probabilities around them."""
    # row by row first: many times quicker than the place of the maximum among all cells
    gain, row = maps.gain.amax(-1).max(-1)
    column = maps.gain.take_along_dim(row[..., None, None], -2)[..., 0, :].argmax(-1)
    cell = torch.stack([column, row], -1) + maps.origin_cells
    patch, inside = maps.patches((cell - 1)[..., None, :, :], 3)
    patch, inside = patch.squeeze(-4), inside.squeeze(-4)
    mask = inside[..., 0, None, :] & inside[..., 1, :, None]
    probability = (patch.float() - maps.ceiling).exp() * (mask & (patch > 0))
    mass = probability.sum((-1, -2))
    offsets = torch.tensor([-1.0, 0.0, 1.0], device=gain.device)
    shift = torch.stack([(probability.sum(-2) * offsets).sum(-1), (probability.sum(-1) * offsets).sum(-1)], -1)
    return Peaks(cell + shift / mass.clamp_min(1e-12)[..., None], gain, mass)
