"""How well keyframes are furnished with landmarks: how many each sees, and over how much of its image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.mapping.map import Map

COLUMNS, ROWS = 8, 6
"""Cells that an image is divided into."""
ENOUGH_LANDMARKS = 200
ENOUGH_CELLS = 0.5
"""A keyframe with fewer landmarks, or with these in a smaller share of its image's cells, is weak."""


@dataclass(frozen=True)
class Coverage:
    """Of K keyframes: ``landmarks`` (K,) int64 that each sees, ``share`` (K,) float64 of its cells that hold one."""

    landmarks: Tensor
    share: Tensor

    @property
    def weak(self) -> Tensor:
        """Mask (K,) of keyframes in which an image has little to hold on to."""
        return (self.landmarks < ENOUGH_LANDMARKS) | (self.share < ENOUGH_CELLS)


def coverage_of(map_: Map) -> Coverage:
    a = map_.arrays
    keyframe, cell = observation_cells(map_)
    covered = torch.zeros((map_.keyframe_count, COLUMNS * ROWS), dtype=torch.bool)
    covered[keyframe, cell] = True
    return Coverage(a.keyframe_start.diff(), covered.double().mean(1))


def observation_cells(map_: Map) -> tuple[Tensor, Tensor]:
    """Keyframe (O,) and image cell (O,), row by row, of every observation; int64."""
    a = map_.arrays
    keyframe = torch.repeat_interleave(torch.arange(map_.keyframe_count), a.keyframe_start.diff())
    sizes = torch.tensor([[camera.width, camera.height] for camera in map_.cameras])[a.keyframe_camera.long()]
    share = (a.uv_px.double() + 0.5) / sizes[keyframe]
    grid = torch.tensor([COLUMNS, ROWS])
    column, row = (share * grid).floor().long().clamp_min(0).minimum(grid - 1).unbind(1)
    return keyframe, row * COLUMNS + column
