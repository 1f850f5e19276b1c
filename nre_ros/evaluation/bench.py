"""Time on this machine, beside what a classical front end takes for the same images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nre_ros.config import LocalizerNodeConfig
from nre_ros.geometry import Pose
from nre_ros.geometry.pose import pose_error
from nre_ros.localization import Localizer
from nre_ros.localization.result import Search
from nre_ros.localization.tracker import Motion, Tracker
from nre_ros.recordings import Frame

DRIFT_RAD = 0.0005
DRIFT_SHARE = 0.0003
"""What odometry is off by after each image, in rotation and as a share of the map's median depth: a random walk."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds over some queries."""

    p50: float
    p95: float

    @staticmethod
    def of(samples_ms: Sequence[float] | np.ndarray) -> Timing:
        return Timing(float(np.percentile(samples_ms, 50)), float(np.percentile(samples_ms, 95)))


def time_localizer(localizer: Localizer, frames: Sequence[Frame], rounds: int) -> dict[str, Timing]:
    """By stage and in total, image to pose; a first round warms up and does not count."""
    stages: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for frame in frames:
            timings = localizer.localize(frame.image_rgb, frame.camera).timings_ms
            if turn:
                for stage, value in timings.items():
                    stages.setdefault(stage, []).append(value)
    return {stage: Timing.of(values) for stage, values in stages.items()}


@dataclass(frozen=True)
class Tracked:
    """Image to pose where the pose is expected, beside the search in the whole map on the same images. Errors are
    medians in degrees; ``tracked`` of ``asked`` images were answered by tracking, only these count."""

    asked: int
    tracked: int
    timing: Timing
    whole_map: Timing
    error_deg: float
    whole_map_error_deg: float


def time_tracking(localizer: Localizer, frames: Sequence[Frame], rounds: int) -> Tracked | None:
    """On a smooth run of posed frames, with odometry that drifts; None where no image could be tracked.

    As the node in ``mode: auto``, but for the images that are looked for in the whole map as well.
    """
    motion, drift = Motion.of(LocalizerNodeConfig()), _drift(len(frames), localizer.map.median_depth)
    samples: list[tuple[float, float, float, float]] = []
    asked = 0
    for _ in range(rounds):
        tracker = Tracker(localizer)
        for frame, off in zip(frames, drift, strict=True):
            assert frame.map_from_cam is not None
            odometry = off @ frame.map_from_cam
            anywhere = localizer.localize(frame.image_rgb, frame.camera)
            found = tracker.find(localizer.see(frame.image_rgb, frame.camera), frame.stamp_ns, odometry, "auto", motion)
            if found.accepted:
                tracker.objection(found, frame.stamp_ns, odometry, 0, motion)
            asked += 1
            if found.search is Search.TRACK and found.map_from_cam is not None and anywhere.map_from_cam is not None:
                here_deg = float(pose_error(found.map_from_cam, frame.map_from_cam)[0])
                anywhere_deg = float(pose_error(anywhere.map_from_cam, frame.map_from_cam)[0])
                samples.append((found.timings_ms["total"], anywhere.timings_ms["total"], here_deg, anywhere_deg))
    if not samples:
        return None
    here_ms, anywhere_ms, here_error, anywhere_error = np.array(samples).T
    return Tracked(
        asked,
        len(samples),
        Timing.of(here_ms),
        Timing.of(anywhere_ms),
        float(np.median(here_error)),
        float(np.median(anywhere_error)),
    )


def _drift(count: int, depth: float) -> list[Pose]:
    """``odom_from_map`` at each image."""
    steps = torch.randn((count, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    deviation = torch.tensor([DRIFT_RAD] * 3 + [DRIFT_SHARE * depth] * 3, dtype=torch.float64)
    walk = Pose.exp((steps * deviation).cumsum(0))
    return [walk[i] for i in range(count)]


def time_sift(frames: Sequence[Frame], rounds: int) -> Timing:
    """OpenCV's SIFT on the same images, detection and description: what users would build instead begins with it."""
    sift = cv2.SIFT_create(nfeatures=2000)  # type: ignore[attr-defined]
    samples_ms = []
    for _ in range(rounds):
        for frame in frames:
            start = time.perf_counter()
            sift.detectAndCompute(cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2GRAY), None)
            samples_ms.append(1e3 * (time.perf_counter() - start))
    return Timing.of(samples_ms)
