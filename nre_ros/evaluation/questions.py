"""What all estimators of a comparison are asked: the same image, retrieved landmarks and loss maps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from nre_ros.config import LocalizerConfig
from nre_ros.errors import RecordingError
from nre_ros.features import limit_size
from nre_ros.geometry import Pose
from nre_ros.localization import Localizer
from nre_ros.localization.candidates import Candidates, describe
from nre_ros.localization.localizer import View
from nre_ros.mapping import Map
from nre_ros.nre import Estimate, FineStage, LossMaps, coarse_loss_maps, estimate_pose
from nre_ros.recordings import Frame

RETRIEVED = "retrieved"
MAPPED = "mapped"
COARSE = "coarse"
"""What an estimator starts from, each with the one before it: the keyframes, the loss maps, the coarse NRE pose."""
STAGES = (RETRIEVED, MAPPED, COARSE)


@dataclass(frozen=True)
class Question:
    """One query. ``frame`` as given, reduced as the localizer does; its pose is the truth. ``view`` what the network
    sees; ``keyframes`` of ``map_``, best first; ``landmarks`` (N,) of it with what the map knows of them;
    ``loss_maps`` and ``fine`` of these; ``start`` the NRE of the coarse maps. ``spent_ms`` by stage of
    :data:`STAGES`, not added up."""

    frame: Frame
    map_: Map
    view: View
    keyframes: tuple[int, ...]
    landmarks: torch.Tensor
    candidates: Candidates
    loss_maps: LossMaps
    fine: FineStage
    start: Estimate
    spent_ms: Mapping[str, float]

    @property
    def truth(self) -> Pose:
        """``cam_from_map``."""
        assert self.frame.map_from_cam is not None
        return self.frame.map_from_cam.inverse()

    @property
    def keyframe_stamps_ns(self) -> list[int]:
        return [int(self.map_.keyframe_stamps_ns[k]) for k in self.keyframes]

    def ms_until(self, stage: str) -> float:
        return sum(self.spent_ms[s] for s in STAGES[: STAGES.index(stage) + 1])


def ask(localizer: Localizer, frames: Iterable[Frame], config: LocalizerConfig) -> Iterator[Question]:
    """Questions about posed frames; raises RecordingError for one without a pose."""
    for frame in frames:
        if frame.map_from_cam is None:
            raise RecordingError(f"frame {frame.name or frame.stamp_ns} has no true pose to compare with")
        yield _question(localizer, frame, config)


@torch.inference_mode()
def _question(localizer: Localizer, frame: Frame, config: LocalizerConfig) -> Question:
    began = time.perf_counter()
    view = localizer.see(frame.image_rgb, frame.camera)
    keyframes, landmarks = localizer.propose(view)
    retrieved = time.perf_counter()
    coarse, fine = view.features.coarse, view.features.fine
    candidates = describe(localizer.map, landmarks, view.features, coarse.values.device)
    loss_maps = coarse_loss_maps(candidates.coarse, coarse.values, coarse.inverse_temperature, coarse.grid)
    mapped = time.perf_counter()
    start = estimate_pose(candidates.xyz_map, view.used, loss_maps, None, config.nre)
    ended = time.perf_counter()
    spent_ms = {RETRIEVED: retrieved - began, MAPPED: mapped - retrieved, COARSE: ended - mapped}
    image, camera = limit_size(frame.image_rgb, frame.camera, config.max_image_side)
    return Question(
        replace(frame, image_rgb=image, camera=camera, depth_m=None),
        localizer.map,
        view,
        keyframes,
        landmarks,
        candidates,
        loss_maps,
        FineStage(candidates.fine, fine.values, fine.inverse_temperature, fine.grid),
        start,
        {stage: 1e3 * seconds for stage, seconds in spent_ms.items()},
    )
