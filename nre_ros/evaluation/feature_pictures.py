"""What a network makes of images, for eyes: the three main directions of its descriptors as red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nre_ros.evaluation.sheets import Tile, cells_as_pixels, sheet
from nre_ros.features import DenseFeatures
from nre_ros.features.maps import FeatureMap

OUTLIERS = 0.01
"""This share of the cells at either end of a colour is saturated."""


def feature_sheet(images: Sequence[np.ndarray], features: Sequence[DenseFeatures]) -> np.ndarray:
    """A column for each image uint8 (H, W, 3): itself, then its maps from the coarsest to the finest, uint8 RGB.

    In a row the same colour means the same descriptor. Cells are squares, as large as they are in the image.
    """
    rows: list[list[Tile]] = [[(f"image {i}", image) for i, image in enumerate(images, 1)]]
    for name in ("context", "coarse", "fine"):
        maps: list[FeatureMap] = [getattr(each, name) for each in features]
        coloured = common_colours(maps)
        row = []
        for image, map_, colours in zip(images, maps, coloured, strict=True):
            height, width = image.shape[:2]
            caption = f"{name}: stride {map_.grid.stride:g}, {len(map_.values)} values"
            row.append((caption, cells_as_pixels(colours, map_.grid.stride, height, width)))
        rows.append(row)
    return sheet(rows)


def common_colours(maps: Sequence[FeatureMap]) -> list[np.ndarray]:
    """Maps (C, h, w) as uint8 (h, w, 3) by one principal component analysis of all their cells."""
    cells = torch.cat([each.values.flatten(1).T for each in maps]).double().cpu()
    centred = cells - cells.mean(0)
    directions = torch.linalg.eigh(centred.mT @ centred).eigenvectors[:, -3:].flip(-1)
    # an eigenvector's sign is arbitrary
    largest = directions.take_along_dim(directions.abs().argmax(0, keepdim=True), 0)
    amounts = centred @ (directions * largest.sign())
    low, high = (torch.quantile(_thinned(amounts), share, dim=0) for share in (OUTLIERS, 1 - OUTLIERS))
    levels = (255 * (amounts - low) / (high - low).clamp_min(1e-9)).clamp(0, 255).round().to(torch.uint8)
    parts = levels.split([each.cells for each in maps])
    return [part.view(*each.values.shape[-2:], 3).numpy() for part, each in zip(parts, maps, strict=True)]


def _thinned(rows: torch.Tensor, most: int = 100_000) -> torch.Tensor:
    """torch sorts 16 million numbers at most for a quantile."""
    return rows[:: 1 + len(rows) // most]
