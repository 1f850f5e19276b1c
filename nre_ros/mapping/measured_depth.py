"""Depth of keypoints, from a depth image that is registered to the image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nre_ros.geometry import Camera


def depth_at(depth_m: np.ndarray | None, uv_px: np.ndarray, camera: Camera) -> Tensor:
    """Depth (N,) at keypoints of the (reduced) image: the median of 3 x 3 pixels, NaN unless these agree to 5 %."""
    if depth_m is None or not len(uv_px):
        return torch.full((len(uv_px),), torch.nan, dtype=torch.float64)
    height, width = depth_m.shape
    centre = (uv_px + 0.5) * [width / camera.width, height / camera.height] - 0.5
    column, row = np.rint(centre).astype(int).T
    steps = np.arange(-1, 2)
    rows = (row[:, None, None] + steps[:, None]).clip(0, height - 1)
    columns = (column[:, None, None] + steps[None, :]).clip(0, width - 1)
    patch = depth_m[rows, columns].reshape(len(uv_px), 9).astype(np.float64)
    known = np.isfinite(patch).all(1) & (patch > 0).all(1)
    patch[~known] = np.nan
    middle = np.full(len(uv_px), np.nan)
    middle[known] = np.median(patch[known], axis=1)
    steady = known & (np.ptp(patch, axis=1) < 0.05 * middle)
    return torch.from_numpy(np.where(steady, middle, np.nan))
