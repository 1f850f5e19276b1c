"""Some queries once more, to see where their poses put the landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nre_ros.evaluation.metrics import Answer
from nre_ros.evaluation.pictures import draw_overlay
from nre_ros.localization import Localizer
from nre_ros.recordings import Frame


def overlays_of(localizer: Localizer, frames: Iterable[Frame], answers: Sequence[Answer]) -> dict[int, np.ndarray]:
    """RGB pictures by stamp of the answers' images, localized again (the same each time) rather than all kept in
    memory; the bare image where no pose was found."""
    wanted = {answer.stamp_ns for answer in answers}
    pictures: dict[int, np.ndarray] = {}
    for frame in frames:
        if frame.stamp_ns in wanted and frame.stamp_ns not in pictures:
            points = localizer.localize(frame.image_rgb, frame.camera).points
            drawn = frame.image_rgb if points is None else draw_overlay(frame.image_rgb, points.uv_px, points.loss)
            pictures[frame.stamp_ns] = drawn
        if len(pictures) == len(wanted):
            break
    return pictures
