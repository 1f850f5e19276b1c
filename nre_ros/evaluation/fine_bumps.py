"""Synthetic logits: Gaussian bumps on smooth noise, and fine loss maps made of them for any window."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nre_ros.geometry import CellGrid
from nre_ros.nre import LossMaps

NOISE_SIGMA = 0.8
"""Smoothness (cells) of the logits' noise, whose standard deviation is 1."""
TILE = 1024
"""Side (cells) of the periodic field of noise that fine maps begin at a random place of."""


@dataclass(frozen=True)
class FineBumps:
    """Fine loss maps worked out for any window: a fine stage for ``estimate_pose``.

    ``xy_cells`` (N, K, 2) centres, ``heights`` (N, K) and ``widths`` (N, K) of each landmark's bumps; NaN centres have
    none. ``tile_offset`` (N, 2) where in the field of noise the landmark's map begins: a cell's logit is the same in
    every window cut.
    """

    grid: CellGrid
    image_cells: tuple[int, int]
    xy_cells: Tensor
    heights: Tensor
    widths: Tensor
    tile_offset: Tensor

    def logits(self, index: Tensor, first: Tensor, size: int) -> Tensor:
        """Of the points ``index`` (M,), in windows (M, size, size), rows then columns, from cell ``first`` (M, 2)."""
        cells = first[:, :, None] + torch.arange(size)
        logits = bumps(cells[:, 0], cells[:, 1], self.xy_cells[index], self.heights[index], self.widths[index])
        column, row = (cells + self.tile_offset[index][..., None]).remainder(TILE).unbind(1)
        return logits.float() + noise_tile().flatten()[row[:, :, None] * TILE + column[:, None, :]]

    def maps(self, index: Tensor, centre_px: Tensor, prior_mass: Tensor, window: int) -> LossMaps:
        """Of the points ``index`` (M,) in windows of ``window`` + 1 cells around ``centre_px`` (M, 2).

        As :func:`nre_ros.nre.fine_loss_maps`: ``prior_mass`` (M,) times the softmax over the cells on the image; no
        gain in windows wholly off it.
        """
        half = window // 2
        size = 2 * half + 1
        bounds = torch.tensor(self.image_cells)
        centre = self.grid.cell_from_pixel(centre_px).round()
        centre = torch.where(torch.isfinite(centre), centre, -size - 1.0)
        first = centre.maximum(-size - bounds).minimum(2 * bounds + size).long() - half
        cells = first[:, None, :] + torch.arange(size)[:, None]
        on_column, on_row = ((cells >= 0) & (cells < bounds)).unbind(-1)
        mask = on_row[:, :, None] & on_column[:, None, :]
        logits = self.logits(index, first, size).masked_fill(~mask, -torch.inf)
        ceiling = math.log(self.image_cells[0] * self.image_cells[1] + 1)
        level = prior_mass.to(logits).clamp_min(1e-12).log() + ceiling - logits.flatten(1).logsumexp(1)
        level = torch.where(mask.flatten(1).any(1), level, torch.zeros_like(level))
        return LossMaps(torch.relu(logits + level[:, None, None]), first, self.image_cells, self.grid, ceiling)


def bumps(columns: Tensor, rows: Tensor, xy_cells: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Sums (N, h, w) of K Gaussian bumps each at cells ``columns`` (N, w) and ``rows`` (N, h).

    Centres ``xy_cells`` (N, K, 2), NaN for none; ``heights`` (N, K) in logits, ``widths`` (N, K) as sigmas in cells.
    """
    along_x, along_y = (
        torch.exp(-(cells[:, None] - centre[..., None]).square() / (2 * widths[..., None].square())).nan_to_num(0)
        for cells, centre in ((columns, xy_cells[..., 0]), (rows, xy_cells[..., 1]))
    )
    return (along_y * heights[..., None]).mT @ along_x


def smooth_noise(white: Tensor) -> Tensor:
    """White noise (..., h, w) smoothed by ``NOISE_SIGMA``, periodic, of the same variance."""
    height, width = white.shape[-2:]
    return torch.matmul(_smoother(height), white) @ _smoother(width)


@functools.cache
def _smoother(size: int) -> Tensor:
    """Circulant matrix (size, size) with rows of unit length."""
    steps = torch.arange(size)
    apart = (steps[:, None] - steps).remainder(size)
    kernel = torch.exp(-0.5 * (apart.minimum(size - apart) / NOISE_SIGMA).square())
    return kernel / kernel[0].norm()


@functools.cache
def noise_tile() -> Tensor:
    """The field (TILE, TILE) of noise; large enough that few landmarks of a case share a part of it."""
    white = np.random.default_rng(0).standard_normal((TILE, TILE), dtype=np.float32)
    return smooth_noise(torch.from_numpy(white))
