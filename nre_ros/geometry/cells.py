"""The one rule that ties the cells of a feature or loss map to pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class CellGrid:
    """Cell x of the map is centred on pixel ``stride * x + offset_px``; the same for rows."""

    stride: float
    offset_px: float

    def cell_from_pixel(self, uv_px: Tensor) -> Tensor:
        return (uv_px - self.offset_px) / self.stride

    def pixel_from_cell(self, xy_cells: Tensor) -> Tensor:
        return xy_cells * self.stride + self.offset_px
