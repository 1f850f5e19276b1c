"""Localize the frames of a recording, one after the other, without ROS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nre_ros.evaluation.metrics import Answer
from nre_ros.localization import Localization, Localizer
from nre_ros.recordings import Frame


def localize_frames(localizer: Localizer, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Localization, Answer]]:
    """Each frame with its localization and the answer that counts; the true pose is the frame's own."""
    for frame in frames:
        found = localizer.localize(frame.image_rgb, frame.camera)
        answer = Answer(
            frame.stamp_ns,
            frame.name,
            found.status.value,
            found.reason,
            found.score,
            found.map_from_cam,
            frame.map_from_cam,
            found.timings_ms["total"],
            found.timings_ms,
        )
        yield frame, found, answer
