"""Windows of fine cells, and where in them a descriptor fits best, to a part of a cell."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.features import FeatureMap


def windows(level: FeatureMap, near_px: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Cells (M, side^2, 2) about pixels (M, 2), row by row, and which of them lie on the map."""
    corner = level.grid.cell_from_pixel(near_px).round().long() - side // 2
    steps = torch.arange(side)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    cells = corner[:, None] + torch.stack([columns, rows], -1).reshape(-1, 2)
    height, width = level.values.shape[1:]
    return cells, ((cells >= 0) & (cells < torch.tensor([width, height]))).all(-1)


def find_peaks(logits: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Of windows (M, W, W) and their best cells (M,): the peak's offset (M, 2) from the cell by parabolas, and the
    probability (M,) of the cell and its eight neighbours."""
    side = logits.shape[-1]
    row, column = best // side, best % side
    padded = F.pad(logits, (1, 1, 1, 1), value=-math.inf)
    each = torch.arange(len(best))

    def at(down: int, right: int) -> Tensor:
        return padded[each, row + 1 + down, column + 1 + right]

    def offset(before: Tensor, after: Tensor) -> Tensor:
        bend = before - 2 * at(0, 0) + after
        return (0.5 * (before - after) / bend.clamp(max=-1e-6)).nan_to_num(0, 0, 0).clamp(-0.5, 0.5)

    total = logits.flatten(1).logsumexp(1)
    share = sum((at(i, j) - total).exp() for i in (-1, 0, 1) for j in (-1, 0, 1))
    assert isinstance(share, Tensor)
    return torch.stack([offset(at(0, -1), at(0, 1)), offset(at(-1, 0), at(1, 0))], -1).double(), share
