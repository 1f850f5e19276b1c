"""Time on this machine, beside what a classical front end takes for the same images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nre_ros.localization import Localizer
from nre_ros.recordings import Frame


@dataclass(frozen=True)
class Timing:
    """Milliseconds over some queries."""

    p50: float
    p95: float

    @staticmethod
    def of(samples_ms: Sequence[float]) -> Timing:
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
