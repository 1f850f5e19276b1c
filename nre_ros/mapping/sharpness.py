"""How sharp an image is, beside others of the same camera and place."""

from __future__ import annotations

import cv2
import numpy as np

NEAR_PX, FAR_PX = 1, 8
"""Motion blur takes away differences of neighbouring pixels, and leaves those of pixels further apart."""
SMOOTHING_PX = 1.0
"""Before that, so that noise does not pass for detail."""
DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))
"""Motion blurs along one direction only."""


def sharpness(image_rgb: np.ndarray) -> np.ndarray:
    """Of an image (H, W, 3) uint8, larger than 16 pixels a side: (4,), along :data:`DIRECTIONS`.

    Mean squared differences at :data:`NEAR_PX` over those at :data:`FAR_PX`: neither contrast nor exposure matters.
    """
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), SMOOTHING_PX)
    near, far = ([_variation(smooth, x * step, y * step) for x, y in DIRECTIONS] for step in (NEAR_PX, FAR_PX))
    return np.array(near) / np.maximum(far, 1e-6)


def relative_sharpness(own: np.ndarray, others: np.ndarray) -> float:
    """``own`` (4,) over the median of the ``others`` (N, 4), along the direction in which that is least."""
    return float((own / np.maximum(np.median(others, axis=0), 1e-9)).min())


def _variation(grey: np.ndarray, right: int, down: int) -> float:
    """Mean squared difference of pixels that lie so far from each other; ``right`` is not negative."""
    height, width = grey.shape
    ahead = grey[max(down, 0) : height + min(down, 0), right:]
    behind = grey[max(-down, 0) : height - max(down, 0), : width - right]
    return float(np.mean((ahead - behind) ** 2))
