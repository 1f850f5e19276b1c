"""What all estimators of a comparison are asked: the same image, retrieved landmarks and loss maps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from nre_ros.config import LocalizerConfig
from nre_ros.errors import RecordingError
from nre_ros.features import limit_size
from nre_ros.geometry import Pose
from nre_ros.localization import Localizer
from nre_ros.localization.evidence import Evidence
from nre_ros.localization.localizer import FEWEST_IN_VIEW, View
from nre_ros.localization.neighbourhood import keyframes_near
from nre_ros.mapping import Map
from nre_ros.recordings import Frame

SEEN = "seen"
RETRIEVED = "retrieved"
MAPPED = "mapped"
"""What an estimator starts from, each with the one before it: the features, the keyframes with their landmarks, the
loss maps of these."""
STAGES = (SEEN, RETRIEVED, MAPPED)


@dataclass(frozen=True)
class Question:
    """One query. ``frame`` as given, reduced as the localizer does; its pose is the truth. ``view`` what the network
    sees; ``keyframes`` of the map, best first; ``search`` the loss maps of the landmarks that the localizer would
    search with. ``spent_ms`` by stage of :data:`STAGES`, not added up."""

    frame: Frame
    localizer: Localizer
    view: View
    keyframes: tuple[int, ...]
    search: Evidence
    spent_ms: Mapping[str, float]

    @property
    def map_(self) -> Map:
        return self.localizer.map

    @property
    def truth(self) -> Pose:
        """``cam_from_map``."""
        assert self.frame.map_from_cam is not None
        return self.frame.map_from_cam.inverse()

    def in_view(self, cam_from_map: Pose) -> Evidence | None:
        """Of the landmarks that the localizer would refine that pose on; None where these are too few."""
        landmarks = self.localizer.propose_around(self.view, cam_from_map.to("cpu").inverse())
        return self.localizer.ask(self.view, landmarks) if len(landmarks) >= FEWEST_IN_VIEW else None

    def stamps_ns(self, keyframes: Iterable[int]) -> list[int]:
        return [int(self.map_.keyframe_stamps_ns[k]) for k in keyframes]

    def stamps_near_ns(self, cam_from_map: Pose) -> list[int]:
        """Of the keyframes whose landmarks :meth:`in_view` takes."""
        return self.stamps_ns(keyframes_near(self.map_, cam_from_map.to("cpu").inverse()))

    def ms_until(self, stage: str) -> float:
        return sum(self.spent_ms[s] for s in STAGES[: STAGES.index(stage) + 1])


def ask(localizer: Localizer, frames: Iterable[Frame], config: LocalizerConfig) -> Iterator[Question]:
    """Questions about posed frames; raises RecordingError for one without a pose."""
    for frame in frames:
        if frame.map_from_cam is None:
            raise RecordingError(f"frame {frame.name or frame.stamp_ns} has no true pose to compare with")
        yield _question(localizer, frame, config)


def twice(question: Question, first: Pose | None, again: Callable[[Evidence, Pose], Pose | None]) -> Pose | None:
    """What ``again`` makes of a first ``cam_from_map`` and the landmarks in its view, as the localizer does with its
    own; the first pose where there are too few or nothing comes of them."""
    asked = None if first is None else question.in_view(first)
    if first is None or asked is None:
        return first
    better = again(asked, first)
    return first if better is None else better


@torch.inference_mode()
def _question(localizer: Localizer, frame: Frame, config: LocalizerConfig) -> Question:
    began = time.perf_counter()
    view = localizer.see(frame.image_rgb, frame.camera)
    seen = time.perf_counter()
    keyframes, landmarks = localizer.propose(view)
    retrieved = time.perf_counter()
    search = localizer.ask(view, landmarks)
    mapped = time.perf_counter()
    spent_ms = {SEEN: seen - began, RETRIEVED: retrieved - seen, MAPPED: mapped - retrieved}
    image, camera = limit_size(frame.image_rgb, frame.camera, config.max_image_side)
    return Question(
        replace(frame, image_rgb=image, camera=camera, depth_m=None),
        localizer,
        view,
        keyframes,
        search,
        {stage: 1e3 * seconds for stage, seconds in spent_ms.items()},
    )
