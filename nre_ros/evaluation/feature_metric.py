"""Feature-metric refinement in the manner of PixLoc, on the features of our map or of PixLoc's network.

Reference descriptors are the means over all keyframes that see a landmark; PixLoc takes the best few. Our networks
have no confidences: there all cells weigh alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.evaluation.questions import Question, twice
from nre_ros.features import DenseFeatures, FeatureNetwork
from nre_ros.features.pixloc import ConfidentMap, PixLocFeatures
from nre_ros.geometry import Camera, Pose
from nre_ros.localization.evidence import Evidence
from nre_ros.mapping import Map
from nre_ros.mapping.descriptors import mean_of_each
from nre_ros.nre.fpr import FeatureLevel, align_features
from nre_ros.recordings import Frame

DAMPINGS = (1e-4, 1e-2, 1.0)
"""Tried for the rotation and for the translation of every level."""
FITTED_ON = 6
"""Keyframes, spread over the map, that dampings are fitted on."""
APART = 0.1
"""Share of the map's depth that the other keyframe must stand away, whose pose is the start."""
MOST_POINTS = 500
CLAMP_PX = 50.0
"""A pose further off is as bad as any; PixLoc's training clamps there too."""


@dataclass(frozen=True)
class References:
    """What L landmarks look like: for every level ``descriptors`` (L, C) and ``certainty`` (L,); and its damping (6,),
    None for the default's."""

    descriptors: tuple[Tensor, ...]
    certainty: tuple[Tensor, ...]
    dampings: tuple[Tensor | None, ...]

    def levels(self, seen: Sequence[ConfidentMap], landmarks: Tensor) -> list[FeatureLevel]:
        """To align the query that is ``seen`` with some landmarks (N,)."""
        found = []
        for level, rows, sure, damping in zip(seen, self.descriptors, self.certainty, self.dampings, strict=True):
            values, grid = level.features.values, level.features.grid
            rows, sure = rows[landmarks].to(values.device), sure[landmarks].to(values.device)
            found.append(FeatureLevel(values, grid, rows, level.confidence, sure, damping))
        return found


@dataclass(frozen=True)
class FeatureMetric:
    """Aligns a query from a pose that is roughly known; ``see`` gives its levels, coarsest first."""

    see: Callable[[Question], list[ConfidentMap]]
    references: References

    @torch.inference_mode()
    def refine(self, question: Question, start: Pose | None) -> Pose | None:
        """``cam_from_map`` on the landmarks of the search, then on those in view; None without a start and where too
        few landmarks are in view."""
        if start is None:
            return None
        seen, camera = self.see(question), question.view.used

        def aligned(asked: Evidence, pose: Pose) -> Pose | None:
            levels = self.references.levels(seen, asked.landmarks)
            return align_features(levels, asked.candidates.xyz_map, camera, pose)

        return twice(question, aligned(question.search, start), aligned)


def confident(seen: DenseFeatures) -> list[ConfidentMap]:
    """The strides of the map's network, in unit descriptors, under even confidence."""
    found: list[ConfidentMap] = []
    for level in (seen.context, seen.coarse, seen.fine):
        if not found or level.grid != found[-1].features.grid:
            unit = replace(level, values=F.normalize(level.values, dim=0), unit=True)
            found.append(ConfidentMap(unit, torch.ones_like(level.values[0])))
    return found


def pixloc_metric(map_: Map, keyframes: Iterable[Frame], network: PixLocFeatures) -> FeatureMetric:
    """On the features of PixLoc's network, with their confidences and learned dampings."""
    references, _ = _described(map_, keyframes, network.levels, every=map_.keyframe_count + 1)
    references = replace(references, dampings=tuple(network.dampings))
    return FeatureMetric(lambda question: network.levels(question.frame.image_rgb), references)


def fitted_metric(map_: Map, keyframes: Iterable[Frame], network: FeatureNetwork) -> FeatureMetric:
    """On the features of the map's network, with dampings fitted on some of the keyframes, each from the pose of
    another that sees some of the same.

    They are part of the map, so their alignment is easier than a query's; only the dampings come of it.
    """
    every = max(map_.keyframe_count // FITTED_ON, 1)
    references, kept = _described(map_, keyframes, lambda image: confident(network.extract(image)), every)
    trials = [_trial(map_, k, seen) for k, seen in kept]
    references = _fitted(references, [trial for trial in trials if trial is not None])
    return FeatureMetric(lambda question: confident(question.view.features), references)


@torch.inference_mode()
def _described(
    map_: Map, keyframes: Iterable[Frame], extract: Callable[[np.ndarray], list[ConfidentMap]], every: int
) -> tuple[References, list[tuple[int, list[ConfidentMap]]]]:
    """References of all landmarks, and what is seen in one keyframe of every so many."""
    rows: list[list[tuple[Tensor, Tensor]]] = []
    sure: list[list[tuple[Tensor, Tensor]]] = []
    kept = []
    for k, frame in enumerate(keyframes):
        seen = extract(frame.image_rgb)
        if k % every == every // 2:
            kept.append((k, seen))
        where = map_.observations_of(k)
        landmark, uv_px = map_.arrays.landmark[where].long(), map_.arrays.uv_px[where]
        rows, sure = rows or [[] for _ in seen], sure or [[] for _ in seen]
        for level, mine, trust in zip(seen, rows, sure, strict=True):
            confidence = replace(level.features, values=level.confidence[None], unit=False)
            mine.append((level.features.sample(uv_px.to(level.confidence.device)), landmark))
            trust.append((confidence.sample(uv_px.to(level.confidence.device)), landmark))
    count = map_.landmark_count
    descriptors = tuple(F.normalize(mean_of_each(_on_cpu(part), count), dim=1) for part in rows)
    certainty = tuple(mean_of_each(_on_cpu(part), count)[:, 0] for part in sure)
    return References(descriptors, certainty, (None,) * len(rows)), kept


def _on_cpu(parts: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [(rows.cpu(), owner) for rows, owner in parts]


@dataclass(frozen=True)
class _Trial:
    """A keyframe whose pose is known, and a ``start`` for it; ``landmarks`` (N,) of the place."""

    seen: list[ConfidentMap]
    landmarks: Tensor
    xyz_map: Tensor
    camera: Camera
    start: Pose
    truth: Pose

    def error_px(self, pose: Pose | None) -> float:
        """Median distance of the projections from where the true pose puts them."""
        if pose is None:
            return CLAMP_PX
        (there, visible), (here, _) = (self.camera.project(p.transform(self.xyz_map)) for p in (self.truth, pose))
        off = (here - there).norm(dim=-1)[visible & self.camera.contains(there)]
        return min(float(off.median()), CLAMP_PX) if len(off) else CLAMP_PX


def _trial(map_: Map, keyframe: int, seen: list[ConfidentMap]) -> _Trial | None:
    """From the keyframe that shares most landmarks, of those that stand far enough away."""
    poses = map_.map_from_keyframe
    apart = (poses.translation - poses.translation[keyframe]).norm(dim=-1)
    mine = map_.arrays.landmark[map_.observations_of(keyframe)]
    shared = [
        int(torch.isin(mine, map_.arrays.landmark[map_.observations_of(k)]).sum())
        * int(apart[k] > APART * map_.median_depth)
        for k in range(map_.keyframe_count)
    ]
    other = int(np.argmax(shared))
    if shared[other] < 20:
        return None
    landmarks = map_.arrays.landmark[map_.observations_of(other)].long()[:MOST_POINTS]
    cam_from_map = poses.inverse()
    camera = map_.cameras[int(map_.arrays.keyframe_camera[keyframe])]
    xyz_map = map_.arrays.xyz_map[landmarks]
    return _Trial(seen, landmarks, xyz_map, camera, cam_from_map[other], cam_from_map[keyframe])


@torch.inference_mode()
def _fitted(references: References, trials: Sequence[_Trial]) -> References:
    """One level after the other, each with the dampings found for those before it."""
    if not trials:
        return references
    starts: list[Pose | None] = [trial.start for trial in trials]
    chosen: list[Tensor | None] = []
    for i in range(len(references.descriptors)):
        best: tuple[float, Tensor, list[Pose | None]] | None = None
        for rotation, translation in itertools.product(DAMPINGS, DAMPINGS):
            damping = torch.tensor([rotation] * 3 + [translation] * 3, dtype=torch.float64)
            ended = []
            for trial, start in zip(trials, starts, strict=True):
                level = replace(references.levels(trial.seen, trial.landmarks)[i], damping=damping)
                ended.append(align_features([level], trial.xyz_map, trial.camera, start) if start else None)
            error = float(np.mean([trial.error_px(pose) for trial, pose in zip(trials, ended, strict=True)]))
            if best is None or error < best[0]:
                best = (error, damping, ended)
        assert best is not None
        starts = best[2]
        chosen.append(best[1])
    return replace(references, dampings=tuple(chosen))
