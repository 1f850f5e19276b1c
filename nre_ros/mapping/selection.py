"""Which posed frames become keyframes: those that show something new, and of these the sharp ones.

A frame that is blurred beside the last keyframes waits. A sharper one that shows the same takes its place; where the
view goes on without one, it becomes a keyframe, so that no place is lost that was seen only blurred.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.keyframe_choice import is_new_view
from nre_ros.mapping.keypoints import Keypoints, match
from nre_ros.mapping.sharpness import relative_sharpness, sharpness

RECENT = 5
"""Keyframes that tell how sharp images are here."""
LOST_SHARE = 0.06
"""Two sharp views that share fewer of their keypoints show different things, or almost."""
LOST_SHARE_BLURRED = 0.03
"""The same where one of them is blurred: it loses half of its matches and more."""


@dataclass(frozen=True)
class Candidate:
    """A frame that may become a keyframe. ``depth`` (N,) float64 is of its keypoints; ``sharpness`` (4,)."""

    stamp_ns: int
    image_rgb: np.ndarray
    camera: Camera
    map_from_cam: Pose
    keypoints: Keypoints
    depth: Tensor
    sharpness: np.ndarray


class KeyframeSelection:
    """Decides about one candidate after the other; holds back one at most.

    Looks at nothing but the candidates, the last keyframe and the sharpness of the :data:`RECENT` last ones: what goes
    on from stored keyframes decides as if it had never been interrupted.
    """

    def __init__(self, config: BuilderConfig) -> None:
        self._config = config
        self._waiting: Candidate | None = None
        self._recent: deque[np.ndarray] = deque(maxlen=RECENT)

    def take_up(self, images_rgb: Iterable[np.ndarray]) -> None:
        """The images of the last keyframes of an earlier session, oldest first."""
        self._recent.extend(sharpness(image) for image in images_rgb)

    def choose(self, candidate: Candidate, last: tuple[Keypoints, Camera] | None) -> list[Candidate]:
        """Candidates that become keyframes now, in order of time: none, this one, or one that waited and this one.

        ``last`` is of the last keyframe.
        """
        chosen: list[Candidate] = []
        waiting = self._waiting
        if waiting is not None and self._leaves_behind(candidate, waiting, last):
            chosen.append(self._chosen(waiting))
            last = waiting.keypoints, waiting.camera
        if last is None or last[1] != candidate.camera:
            self._recent.clear()
            return [*chosen, self._chosen(candidate)]
        if not is_new_view(last[0], candidate.keypoints, candidate.camera.width, self._config):
            return chosen
        if self._is_blurred(candidate) and _shared(last[0], candidate.keypoints) >= LOST_SHARE_BLURRED:
            self._hold(candidate)
            return chosen
        return [*chosen, self._chosen(candidate)]

    def rest(self) -> list[Candidate]:
        """What waits, at the end: nothing sharper came."""
        return [] if self._waiting is None else [self._chosen(self._waiting)]

    def _leaves_behind(self, candidate: Candidate, waiting: Candidate, last: tuple[Keypoints, Camera] | None) -> bool:
        """Whether the view has gone on so far that what waits shows something that nothing else does."""
        if last is None or last[1] != candidate.camera:
            return True
        bridged = LOST_SHARE_BLURRED if self._is_blurred(candidate) else LOST_SHARE
        if _shared(last[0], candidate.keypoints) < bridged:
            return True
        if not is_new_view(last[0], candidate.keypoints, candidate.camera.width, self._config):
            return False  # back where the last keyframe was: what waits, waits on
        return _shared(waiting.keypoints, candidate.keypoints) < LOST_SHARE_BLURRED

    def _is_blurred(self, candidate: Candidate) -> bool:
        least = self._config.keyframe_sharpness
        if least <= 0 or not self._recent:
            return False
        return relative_sharpness(candidate.sharpness, np.stack(self._recent)) < least

    def _hold(self, candidate: Candidate) -> None:
        if self._waiting is None or candidate.sharpness.min() > self._waiting.sharpness.min():
            self._waiting = candidate

    def _chosen(self, candidate: Candidate) -> Candidate:
        self._waiting = None
        self._recent.append(candidate.sharpness)
        return candidate


def _shared(a: Keypoints, b: Keypoints) -> float:
    """Share of the keypoints of the poorer view that are found in the other."""
    return len(match(a, b)[0]) / max(1, min(len(a), len(b)))
