"""Localize the frames of a recording, one after the other, without ROS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

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
            _view_depth(frame, found),
        )
        yield frame, found, answer


def _view_depth(frame: Frame, found: Localization) -> float | None:
    """Median depth of the landmarks asked about that lie in the image by the true pose; None if there are none."""
    if frame.map_from_cam is None or found.points is None:
        return None
    xyz_cam = frame.map_from_cam.inverse().transform(torch.from_numpy(found.points.xyz_map).double())
    uv_px, visible = frame.camera.project(xyz_cam)
    depth = xyz_cam[visible & frame.camera.contains(uv_px), 2]
    return float(depth.median()) if len(depth) else None
