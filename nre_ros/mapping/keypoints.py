"""Places in a keyframe worth a landmark, and how to find them again in another."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

GRID = (8, 6)
"""Columns and rows of the grid over which keypoints are spread."""
MIN_DISTANCE_PX = 2.5
"""Keypoints nearer to a stronger one than this are left out: the same place found twice would spoil ratio tests."""

ROUNDING = 1e-5
"""Of a product of two descriptors, and more: what is found twice, alike to the last bit, must not pass a ratio test."""

MAX_DISTANCE = 0.7
"""Largest distance of two matched RootSIFT descriptors (unit length)."""


@dataclass(frozen=True)
class Keypoints:
    """``uv_px`` (N, 2) float64 and RootSIFT ``descriptors`` (N, 128) float32 of unit length."""

    uv_px: np.ndarray
    descriptors: Tensor

    def __len__(self) -> int:
        return len(self.uv_px)


def detect(image_rgb: np.ndarray, most: int) -> Keypoints:
    """Up to ``most`` SIFT keypoints, strongest first within each cell of a grid, cells served in turn."""
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT_create(nfeatures=4 * most, contrastThreshold=0.008)  # type: ignore[attr-defined]
    found, sift = detector.detectAndCompute(grey, None)
    if sift is None or not found:
        return Keypoints(np.zeros((0, 2)), torch.zeros((0, 128)))
    uv_px = np.array([point.pt for point in found], np.float64)
    strength = np.array([point.response for point in found])
    order = np.argsort(-strength, kind="stable")
    order = order[_not_crowded(uv_px[order])]
    rank = rank_in_part(uv_px[order], image_rgb.shape[1], image_rgb.shape[0])
    chosen = order[np.argsort(rank, kind="stable")[:most]]
    root = np.sqrt(sift[chosen] / np.maximum(sift[chosen].sum(1, keepdims=True), 1e-12))
    return Keypoints(uv_px[chosen], torch.from_numpy(root.astype(np.float32)))


def _not_crowded(uv_px: np.ndarray) -> np.ndarray:
    """Mask of points (strongest first) with no stronger neighbour within MIN_DISTANCE_PX."""
    pairs = cKDTree(uv_px).query_pairs(MIN_DISTANCE_PX, output_type="ndarray")
    keep = np.ones(len(uv_px), bool)
    keep[pairs.max(1)] = False
    return keep


def rank_in_part(uv_px: np.ndarray, width: int, height: int) -> np.ndarray:
    """How many of the points (N, 2) before each lie in the same cell of a grid over the image (N,): in the order of
    this rank points are spread. Points beyond the image belong to the cell nearest to them."""
    columns = np.minimum((uv_px[:, 0] * GRID[0] / width).astype(int).clip(0), GRID[0] - 1)
    rows = np.minimum((uv_px[:, 1] * GRID[1] / height).astype(int).clip(0), GRID[1] - 1)
    cell = rows * GRID[0] + columns
    by_cell = np.argsort(cell, kind="stable")
    first = np.searchsorted(cell[by_cell], cell[by_cell])
    rank = np.empty(len(cell), int)
    rank[by_cell] = np.arange(len(cell)) - first
    return rank


def match(
    a: Keypoints, b: Keypoints, allowed: Tensor | None = None, ratio: float = 0.8
) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs (M, 2) of keypoints that are each other's nearest and clearly nearer than the second nearest.

    ``allowed`` (Na, Nb) bool restricts the pairs beforehand, such as to those near each other's epipolar lines: then
    the second nearest is sought among the allowed only. Also the distance ratios (M,): the lower, the surer.
    """
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), int), np.zeros(0)
    similarity = a.descriptors @ b.descriptors.T
    if allowed is not None:
        similarity.masked_fill_(~allowed, -1.0)
    best, column = similarity.max(1)
    mutual = similarity.max(0).indices[column] == torch.arange(len(a))
    similarity.scatter_(1, column[:, None], -1.0)
    second = similarity.max(1).values
    ratios = (((1 - best).clamp_min(0) + ROUNDING) / ((1 - second).clamp_min(0) + ROUNDING)).sqrt()
    alike = best > 1 - MAX_DISTANCE**2 / 2
    rows = torch.nonzero(mutual & alike & (ratios < ratio))[:, 0]
    return torch.stack([rows, column[rows]], 1).numpy(), ratios[rows].numpy()
