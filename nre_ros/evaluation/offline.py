"""Localize the frames of a recording, one after the other, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from nre_ros.evaluation.metrics import Answer
from nre_ros.geometry import Camera, Pose
from nre_ros.localization import Localization, Localizer
from nre_ros.localization.localizer import View
from nre_ros.mapping import Map
from nre_ros.recordings import Frame

Watch = Callable[[Frame, View, Localization], None]
"""Told of every frame, what the network made of it and what came of that: for those who want to know more."""


def localize_frames(
    localizer: Localizer, frames: Iterable[Frame], watch: Watch | None = None
) -> Iterator[tuple[Frame, Localization, Answer]]:
    """Each frame with its localization and the answer that counts; the true pose is the frame's own."""
    for frame in frames:
        view = localizer.see(frame.image_rgb, frame.camera)
        found = localizer.search(view)
        if watch is not None:
            watch(frame, view, found)
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
            covariance=found.covariance,
        )
        yield frame, found, answer


def view_depth(map_: Map, keyframes: Iterable[int], camera: Camera, truth: Pose) -> float | None:
    """Median depth of the keyframes' landmarks that lie in the image by the true pose; None if there are none."""
    seen = [map_.arrays.landmark[map_.observations_of(k)].long() for k in keyframes]
    if not seen:
        return None
    xyz_cam = truth.inverse().transform(map_.arrays.xyz_map[torch.unique(torch.cat(seen))].double())
    uv_px, visible = camera.project(xyz_cam)
    depth = xyz_cam[visible & camera.contains(uv_px), 2]
    return float(depth.median()) if len(depth) else None
