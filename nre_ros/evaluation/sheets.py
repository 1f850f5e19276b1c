"""Pictures with captions, put together to one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Tile = tuple[str, np.ndarray]
"""A caption and what stands below it, uint8 RGB (H, W, 3)."""

CAPTION_PX = 22
GAP_PX = 6
PAPER = 250
_INK = (30, 30, 30)


def sheet(rows: Sequence[Sequence[Tile]]) -> np.ndarray:
    """Rows of tiles, uint8 RGB, aligned at the left of their columns and the top of their rows."""
    columns = max(len(row) for row in rows)
    widths = [max(row[i][1].shape[1] for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(picture.shape[0] for _, picture in row) for row in rows]
    width = sum(widths) + GAP_PX * (columns + 1)
    height = sum(heights) + (CAPTION_PX + GAP_PX) * len(rows) + GAP_PX
    paper: np.ndarray = np.full((height, width, 3), PAPER, np.uint8)
    top = GAP_PX
    for row, tall in zip(rows, heights, strict=True):
        left = GAP_PX
        for (caption, picture), wide in zip(row, widths, strict=False):
            written = paper[top : top + CAPTION_PX, left : left + wide]
            cv2.putText(written, caption, (1, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
            place = top + CAPTION_PX
            paper[place : place + picture.shape[0], left : left + picture.shape[1]] = picture
            left += wide + GAP_PX
        top += CAPTION_PX + tall + GAP_PX
    return paper


def cells_as_pixels(cells: np.ndarray, stride: float, height: int, width: int) -> np.ndarray:
    """Every pixel (height, width, ...) gets the value of the cell (h, w, ...) it lies in: cells show as squares."""
    rows = np.minimum((np.arange(height) / stride).astype(int), cells.shape[0] - 1)
    columns = np.minimum((np.arange(width) / stride).astype(int), cells.shape[1] - 1)
    return np.asarray(cells[rows][:, columns])
