"""Which frames become keyframes: those whose view moved, or holds much that the last one does not."""

from __future__ import annotations

import numpy as np

from nre_ros.config import BuilderConfig
from nre_ros.mapping.keypoints import Keypoints, match


def is_new_view(last: Keypoints, keypoints: Keypoints, width: int, config: BuilderConfig) -> bool:
    """Whether an image ``width`` pixels wide deserves to follow the ``last`` keyframe, of the same camera."""
    pairs, _ = match(last, keypoints)
    fewest = max(1, min(len(keypoints), len(last)))
    if len(pairs) < config.keyframe_overlap * fewest:
        return True
    motion = np.linalg.norm(last.uv_px[pairs[:, 0]] - keypoints.uv_px[pairs[:, 1]], axis=1)
    return bool(np.median(motion) > config.keyframe_motion * width)
