"""What a user would build instead: SIFT, landmarks triangulated from it, and robust PnP on its matches.

The keyframes are those of our map, the poses theirs, and so is the retrieval of each query; of our landmarks and
descriptors nothing is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch

from nre_ros.evaluation.rivals import Matches, undistorted
from nre_ros.evaluation.sift_map import triangulated
from nre_ros.geometry import Camera
from nre_ros.mapping.keypoints import Keypoints, detect, match
from nre_ros.recordings import Frame

KEYPOINTS = 2000
"""Of a query; keyframes have as many as our builder looks for."""
RATIO = 0.8
"""Lowe's."""
CLAHE_LIMIT, CLAHE_TILES = 4.0, (8, 8)
SMOOTHING_PX = 1.0


class SiftMap:
    """Made of posed keyframes, which are then known by their stamps."""

    def __init__(self, keyframes: Iterable[Frame]) -> None:
        self._keyframes = triangulated(keyframes)

    @staticmethod
    def keypoints(image_rgb: np.ndarray) -> Keypoints:
        """Of a query."""
        return detect(image_rgb, KEYPOINTS)

    def matches(self, asked: Keypoints, camera: Camera, stamps_ns: Sequence[int]) -> Matches:
        """A query's keypoints matched with one keyframe after the other; each keypoint keeps its surest match."""
        best: dict[int, tuple[float, np.ndarray]] = {}
        for stamp_ns in stamps_ns:
            keyframe = self._keyframes[stamp_ns]
            pairs, ratios = match(asked, keyframe.keypoints, ratio=RATIO)
            for (mine, theirs), ratio in zip(pairs.tolist(), ratios.tolist(), strict=True):
                if mine not in best or ratio < best[mine][0]:
                    best[mine] = (ratio, keyframe.xyz_map[theirs])
        uv_px = torch.from_numpy(asked.uv_px[list(best)].reshape(-1, 2))
        xyz_map = np.array([xyz for _, xyz in best.values()]).reshape(-1, 3)
        return undistorted(xyz_map, uv_px, camera)


def enhanced(image_rgb: np.ndarray) -> np.ndarray:
    """Smoothed, then stretched in contrast (CLAHE): what helps SIFT with dark and noisy images. Grey (H, W, 3)."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), (0, 0), SMOOTHING_PX)
    stretched = cv2.createCLAHE(CLAHE_LIMIT, CLAHE_TILES).apply(grey)
    return np.repeat(stretched[..., None], 3, axis=2)
