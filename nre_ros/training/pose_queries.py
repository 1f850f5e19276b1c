"""Posed images to be localized by the 3D points of another image, as by a map of one keyframe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nre_ros.features import limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.training.config import TrainingConfig
from nre_ros.training.photometric import STRONG, degrade
from nre_ros.training.posed import PosedPairs, Shown

MOST_POINTS = 500
"""Of the reference's points so many are asked about, drawn at random."""

_SEED = 78
_TRIES = 50


@dataclass(frozen=True)
class PoseQuery:
    """``query_rgb`` is asked about points that ``reference_rgb`` shows, both uint8 (H, W, 3).

    ``uv_px`` (N, 2) is where the points ``xyz`` (N, 3) of the scene are in the reference, whether or not the query sees
    them. ``camera`` and ``cam_from_scene`` are the query's, ``depth`` its median depth of the points that both see.
    """

    reference_rgb: np.ndarray
    query_rgb: np.ndarray
    uv_px: Tensor
    xyz: Tensor
    camera: Camera
    cam_from_scene: Pose
    depth: float


def fixed_queries(source: PosedPairs, config: TrainingConfig, *, strong: bool) -> list[PoseQuery]:
    """``config.validation_poses`` queries, the same every time; with ``strong``, the images are dim, blurred or noisy.

    They are as large as the crops that are trained on. Fewer queries if images cannot be read.
    """
    queries: list[PoseQuery] = []
    for number in range(config.validation_poses):
        rng = np.random.default_rng([_SEED, number])
        drawn = (source.draw_images(rng) for _ in range(_TRIES))
        images = next((images for images in drawn if images is not None), None)
        if images is not None:
            queries.append(pose_query(*images, config.pairs.width, rng, strong=strong))
    return queries


def pose_query(
    reference: Shown, query: Shown, max_side: int, rng: np.random.Generator, *, strong: bool = False
) -> PoseQuery:
    """Two images that share points, reduced to ``max_side`` pixels."""
    (a, photo_a), (b, photo_b) = reference, query
    image_a, camera_a = limit_size(photo_a, a.camera, max_side)
    image_b, camera_b = limit_size(photo_b, b.camera, max_side)
    chosen = np.sort(rng.permutation(len(a.point))[:MOST_POINTS])
    xyz = torch.from_numpy(a.xyz)
    uv_px, _ = camera_a.project(a.cam_from_scene.transform(xyz[chosen]))
    depth = b.cam_from_scene.transform(xyz[np.isin(a.point, b.point)])[:, 2].median()
    shown = degrade(image_b, rng, STRONG) if strong else image_b
    return PoseQuery(image_a, shown, uv_px, xyz[chosen], camera_b, b.cam_from_scene, float(depth))
