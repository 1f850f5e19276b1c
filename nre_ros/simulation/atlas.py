"""Many images in one, so that one call can sample all of them; with reduced copies against aliasing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LEVELS = 5
"""Full size and four halvings: a texel of the last is 16 texels wide."""

_SCALES = np.float32(0.5) ** np.arange(LEVELS, dtype=np.float32)
_GUTTER = 2 ** (LEVELS - 1)
_COLUMNS = 1024
"""Width of the table that scattered samples are arranged in: OpenCV wants maps of fewer than 32768 columns."""


@dataclass(frozen=True)
class Atlas:
    """``image`` holds all levels; ``rects`` (N, 4) the x, y, width and height of each packed image at full size.

    Level l stands at ``offsets[l]`` (x, y) in the image, and there full-size coordinates shrink by 2**l.
    """

    image: np.ndarray
    rects: np.ndarray
    offsets: np.ndarray

    def sample(self, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Bilinear samples (M, 3), uint8, at full-size coordinates (M,) that count from a texel's outer corner.

        ``level`` (M,) integers pick the reduced copy.
        """
        scale = _SCALES[level]
        offset_x, offset_y = self.offsets.astype(np.float32).T - np.float32(0.5)
        return remap(self.image, x * scale + offset_x[level], y * scale + offset_y[level])


def remap(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples (M, C) of an image at pixel positions (M,), in the image's own type."""
    count = len(x)
    rows = -(-count // _COLUMNS)
    maps = np.zeros((2, rows * _COLUMNS), np.float32)
    maps[0, :count], maps[1, :count] = x, y
    grid = maps.reshape(2, rows, _COLUMNS)
    out = cv2.remap(image, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(rows * _COLUMNS, -1)[:count]


def build_atlas(images: Sequence[np.ndarray], width: int = 8192) -> Atlas:
    """Pack uint8 images (h, w, 3) with their edges repeated around them, and reduce the whole."""
    sizes = [(i.shape[0] + 2 * _GUTTER, i.shape[1] + 2 * _GUTTER) for i in images]
    rects, height = shelves(sizes, width, _GUTTER)
    base: np.ndarray = np.zeros((height, width, 3), np.uint8)
    for image, (x, y) in zip(images, rects, strict=True):
        h, w = (_aligned(side + 2 * _GUTTER, _GUTTER) - side - _GUTTER for side in image.shape[:2])
        padded = cv2.copyMakeBorder(image, _GUTTER, h, _GUTTER, w, cv2.BORDER_REPLICATE)
        base[y : y + padded.shape[0], x : x + padded.shape[1]] = padded
    whole = np.zeros((height, width + width // 2, 3), np.uint8)
    whole[:, :width] = base
    offsets = [(0, 0)]
    y = 0
    for _ in range(1, LEVELS):
        base = cv2.resize(base, (base.shape[1] // 2, base.shape[0] // 2), interpolation=cv2.INTER_AREA)
        whole[y : y + base.shape[0], width : width + base.shape[1]] = base
        offsets.append((width, y))
        y += base.shape[0]
    inner = [(x + _GUTTER, y + _GUTTER, i.shape[1], i.shape[0]) for (x, y), i in zip(rects, images, strict=True)]
    return Atlas(whole, np.array(inner, np.int64), np.array(offsets, np.int64))


def shelves(sizes: Sequence[tuple[int, int]], width: int, align: int) -> tuple[list[tuple[int, int]], int]:
    """Places (x, y) for rectangles of sizes (h, w) in rows of a given width, and the height of all rows.

    Every place is a multiple of ``align``.
    """
    places: list[tuple[int, int]] = [(0, 0)] * len(sizes)
    x = y = row_height = 0
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i][0]):
        h, w = (_aligned(side, align) for side in sizes[index])
        if x + w > width:
            x, y, row_height = 0, y + row_height, 0
        places[index] = (x, y)
        x, row_height = x + w, max(row_height, h)
    return places, _aligned(y + row_height, align)


def _aligned(value: int, align: int) -> int:
    return -(-value // align) * align
