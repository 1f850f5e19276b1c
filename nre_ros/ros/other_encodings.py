"""Encodings that our decoder does not know, by cv_bridge where it imports.

Not the known ones: cv_bridge (4.1, as in Jazzy) shifts every row of an image whose padding is no multiple of a pixel,
and fails on big-endian images under NumPy 2.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image

from nre_ros.errors import RecordingError
from nre_ros.recordings.images import ENCODINGS, check_layout


def decode_by_cv_bridge(message: Image) -> np.ndarray:
    """uint8 RGB (H, W, 3). Raises RecordingError where cv_bridge is missing, broken or does not know it either."""
    unknown = f"image encoding {message.encoding!r} is unknown, expected one of {', '.join(ENCODINGS)}"
    try:
        from cv_bridge import CvBridge
    except Exception as error:  # built for another NumPy, it raises whatever it likes
        raise RecordingError(f"{unknown}; others are left to cv_bridge, which does not import: {error}") from None
    check_layout(message.encoding, message.height, message.width, message.step, len(message.data))
    try:
        image_rgb = np.asarray(CvBridge().imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:
        raise RecordingError(f"{unknown}; cv_bridge fails on it too: {error}") from None
    if image_rgb.shape != (message.height, message.width, 3) or image_rgb.dtype != np.uint8:
        raise RecordingError(f"{unknown}; cv_bridge made {image_rgb.dtype} of shape {image_rgb.shape} of it")
    return image_rgb
