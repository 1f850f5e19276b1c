"""What the localizer thinks of an image, drawn on it."""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import Image

from nre_ros.localization import Localization
from nre_ros.ros.conversions import header

LONGEST_PX = 1280
"""Larger images are drawn reduced."""
BAR_PX = 22


def draw_debug_image(image_rgb: np.ndarray, found: Localization, verdict: str) -> np.ndarray:
    """uint8 RGB: each landmark where the pose puts it, from green (explained) to red (loss at its ceiling), and the
    verdict on top, on green when the pose was believed."""
    scale = min(1.0, LONGEST_PX / max(image_rgb.shape[:2]))
    size = (round(image_rgb.shape[1] * scale), round(image_rgb.shape[0] * scale))
    canvas = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    if found.points is not None:
        _draw_points(canvas, (found.points.uv_px + 0.5) * scale - 0.5, found.points.loss)
    bar = np.full((BAR_PX, size[0], 3), (20, 90, 30) if not verdict else (120, 25, 20), np.uint8)
    text = f"{found.search.value}, score {found.score:.2f}: {verdict or 'believed'}"
    cv2.putText(bar, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, canvas])


def _draw_points(canvas: np.ndarray, uv_px: np.ndarray, loss: np.ndarray) -> None:
    inside = (np.nan_to_num(uv_px, nan=-1e9) > -0.5).all(1) & (np.nan_to_num(uv_px, nan=1e9) < canvas.shape[1::-1]).all(
        1
    )
    for index in np.flatnonzero(inside)[np.argsort(-loss[inside])]:  # the explained ones on top
        centre = tuple((uv_px[index] * 8).round().astype(int).tolist())
        share = float(np.clip(loss[index], 0, 1))
        colour = (255 * min(2 * share, 1.0), 235 * min(2 - 2 * share, 1.0), 40)
        cv2.circle(canvas, centre, 3 * 8, (10, 10, 10), -1, cv2.LINE_AA, 3)
        cv2.circle(canvas, centre, 2 * 8, colour, -1, cv2.LINE_AA, 3)


def rgb_message(image_rgb: np.ndarray, frame_id: str, stamp_ns: int) -> Image:
    """uint8 RGB (H, W, 3) as a message."""
    height, width = image_rgb.shape[:2]
    message = Image(header=header(frame_id, stamp_ns), height=height, width=width, encoding="rgb8", step=3 * width)
    # array.array is taken over as it is; bytes would be checked one by one
    message.data = array.array("B", image_rgb.tobytes())
    return message
