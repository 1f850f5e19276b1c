"""Dense feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from nre_ros.geometry import CellGrid


@dataclass(frozen=True)
class FeatureMap:
    """Descriptors of every cell.

    ``values`` (C, h, w), of unit length over C where ``unit`` is true, else of whatever length the network gives them.
    ``inverse_temperature`` scales the dot product of two descriptors to the logits of Eq. 5's softmax.
    """

    values: Tensor
    grid: CellGrid
    inverse_temperature: float
    unit: bool = True

    @property
    def cells(self) -> int:
        return self.values.shape[-2] * self.values.shape[-1]

    def sample(self, uv_px: Tensor) -> Tensor:
        """Descriptors (N, C) at pixels (N, 2), bilinear between cell centres, border cells held."""
        height, width = self.values.shape[-2:]
        xy = self.grid.cell_from_pixel(uv_px.to(self.values))
        span = xy.new_tensor([max(width - 1, 1), max(height - 1, 1)])
        read = F.grid_sample(
            self.values[None], (xy / span * 2 - 1)[None, None], align_corners=True, padding_mode="border"
        )
        return self.mixed(read[0, :, 0].T)

    def mixed(self, means: Tensor) -> Tensor:
        """What means (N, C) of several descriptors stand for: of unit length again, unless the network's are raw."""
        return F.normalize(means, dim=-1) if self.unit else means


@dataclass(frozen=True)
class DenseFeatures:
    """One image seen by a network: ``coarse`` for loss maps over the whole image, ``fine`` for windows,
    ``context`` (the coarsest) for retrieval. All speak of pixels of the image that was given."""

    coarse: FeatureMap
    fine: FeatureMap
    context: FeatureMap


def crop_to_image(values: Tensor, grid: CellGrid, height_px: int, width_px: int) -> Tensor:
    """Drop the cells (C, h, w) whose centres lie in the padding beyond the image."""
    rows = int((height_px - 1 - grid.offset_px) // grid.stride) + 1
    columns = int((width_px - 1 - grid.offset_px) // grid.stride) + 1
    return values[..., : max(rows, 1), : max(columns, 1)]
