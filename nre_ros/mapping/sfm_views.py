"""Frames without poses, as structure from motion takes them: which ones, and which pairs of them to match."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.errors import CalibrationError
from nre_ros.features import limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.keyframe_choice import is_new_view
from nre_ros.mapping.keypoints import Keypoints, detect
from nre_ros.mapping.measured_depth import depth_at
from nre_ros.mapping.retrieval import aggregate, learn_vocabulary
from nre_ros.recordings.frame import Frame

ALL_PAIRS = 30
"""Views of which every pair is matched; of more, those that follow each other and those that look alike."""
FOLLOWING = 5
ALIKE = 12
LEAST_KEYPOINTS = 15
"""Images with fewer show nothing that could be matched."""


@dataclass(frozen=True)
class SfmView:
    """``index`` counts the frames given; ``depth`` (N,) float64 of the keypoints along the optical axis, NaN where
    unknown; ``given`` is the frame's own map_from_cam, where it has one."""

    index: int
    name: str
    stamp_ns: int
    camera: Camera
    keypoints: Keypoints
    depth: Tensor
    given: Pose | None


def choose_views(
    frames: Iterable[Frame], config: BuilderConfig, wanted: Callable[[Frame], bool] = lambda frame: False
) -> list[SfmView]:
    """The frames that a builder would make keyframes of, and those that are ``wanted``.

    Raises CalibrationError for an image that is not of its camera's size.
    """
    views: list[SfmView] = []
    for index, frame in enumerate(frames):
        height, width = frame.image_rgb.shape[:2]
        if (width, height) != (frame.camera.width, frame.camera.height):
            raise CalibrationError(
                f"frame {frame.name or index} is {width}x{height} pixels, its calibration says "
                f"{frame.camera.width}x{frame.camera.height}"
            )
        image, camera = limit_size(frame.image_rgb, frame.camera, config.max_image_side)
        keypoints = detect(image, config.points_per_keyframe)
        if wanted(frame) or not views or _is_new(views[-1], keypoints, camera, config):
            depth = depth_at(frame.depth_m, keypoints.uv_px, camera)
            views.append(SfmView(index, frame.name, frame.stamp_ns, camera, keypoints, depth, frame.map_from_cam))
    return views


def _is_new(last: SfmView, keypoints: Keypoints, camera: Camera, config: BuilderConfig) -> bool:
    return last.camera != camera or is_new_view(last.keypoints, keypoints, camera.width, config)


def pairs_to_match(views: list[SfmView]) -> list[tuple[int, int]]:
    """Positions (i, j), i < j, of views that may show the same things."""
    usable = [i for i, view in enumerate(views) if len(view.keypoints) >= LEAST_KEYPOINTS]
    if len(usable) <= ALL_PAIRS:
        return [(i, j) for n, i in enumerate(usable) for j in usable[n + 1 :]]
    pairs = {(i, j) for n, i in enumerate(usable) for j in usable[n + 1 : n + 1 + FOLLOWING]}
    for n, row in enumerate(_similarity([views[i].keypoints for i in usable])):
        row[n] = -1
        for other in row.topk(ALIKE).indices.tolist():
            pairs.add((usable[min(n, other)], usable[max(n, other)]))
    return sorted(pairs)


def _similarity(keypoints: list[Keypoints]) -> Tensor:
    """(N, N) of global descriptors made of the SIFT descriptors, as the map makes them of the network's."""
    columns = [mine.descriptors.T[:, None] for mine in keypoints]
    vocabulary = learn_vocabulary(columns, len(columns))
    descriptors = torch.stack([aggregate(column, vocabulary) for column in columns])
    return descriptors @ descriptors.T
