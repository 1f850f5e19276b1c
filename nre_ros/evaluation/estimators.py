"""The estimators of a comparison: NRE, parts of it, the classical ones on its maps, feature-metric ones, SIFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nre_ros.config import NreConfig
from nre_ros.errors import ConfigError
from nre_ros.evaluation.feature_metric import FeatureMetric
from nre_ros.evaluation.questions import MAPPED, RETRIEVED, SEEN, Question, twice
from nre_ros.evaluation.rivals import RIVALS, Matches, Rival, best_cells
from nre_ros.evaluation.sift import SiftMap, enhanced
from nre_ros.geometry import Camera, Pose
from nre_ros.localization import Localizer
from nre_ros.localization.evidence import Evidence
from nre_ros.nre import estimate_pose

CELL_THRESHOLDS = (0.5, 1.0, 1.5, 2.5, 4.0)
"""Inlier thresholds tried for RANSAC on loss maps, cells of the maps."""
PIXEL_THRESHOLDS = (1.0, 2.0, 4.0, 8.0)
"""And on SIFT matches, pixels."""


@dataclass(frozen=True)
class Estimator:
    """``solve`` takes a question and one of the ``settings`` and gives ``cam_from_map``, or None where it fails.

    ``needs`` names the stage whose time, and that of those before it, is part of this one's. ``unit`` is that of the
    settings, empty where there is nothing to set.
    """

    label: str
    needs: str
    solve: Callable[[Question, float], Pose | None]
    settings: tuple[float, ...] = (0.0,)
    unit: str = ""


OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "nre": ("NRE: MSAC, coarse and fine GNC", {}),
    "msac": ("MSAC alone", {"skip_gnc": True}),
    "msac_coarse": ("MSAC, coarse GNC", {"fine_rounds": 0}),
    "re": ("RE in our estimator (Eq. 11)", {"use_re": True}),
    "fpr": ("FPR (Eq. 12) from coarse NRE", {"refinement": "fpr"}),
}
"""Label, and what of the configuration changes."""

STAGES = ("coarse", "fine")
RANSAC = tuple(f"{name}_{stage}" for name in RIVALS for stage in STAGES)
FEATURE_METRIC = ("align_keyframe", "align_coarse")
"""With the map's network, from the best retrieved keyframe and from the coarse NRE."""
PIXLOC = ("pixloc_keyframe", "pixloc_coarse")
"""The same with PixLoc's."""
SIFT = ("sift", "sift_enhanced")
NAMES = (*OURS, *RANSAC, *FEATURE_METRIC, *PIXLOC, *SIFT)


@dataclass(frozen=True)
class Equipment:
    """What some estimators need besides the question: features of the landmarks, SIFT of the map's keyframes and a
    rival for its matches."""

    aligned: FeatureMetric | None = None
    pixloc: FeatureMetric | None = None
    sift: SiftMap | None = None
    sift_rival: Rival = RIVALS["usac_accurate"]


def names_of(texts: Sequence[str]) -> tuple[str, ...]:
    """``["nre,re"]`` to names, each once; raises ConfigError for unknown ones."""
    words = [word.strip() for text in texts for word in text.split(",")]
    for word in words:
        if word not in NAMES:
            raise ConfigError(f"estimator {word!r} is unknown; known ones: {', '.join(NAMES)}")
    return tuple(dict.fromkeys(words))


def estimators(
    names: Sequence[str], localizer: Localizer, config: NreConfig, equipment: Equipment
) -> dict[str, Estimator]:
    """By name, in the order given, for questions of ``localizer``; ``equipment`` must hold what they need."""
    return {name: _estimator(name, localizer, config, equipment) for name in names}


def _estimator(name: str, localizer: Localizer, config: NreConfig, equipment: Equipment) -> Estimator:
    if name in OURS:
        label, changes = OURS[name]
        return Estimator(label, SEEN, partial(_solve_ours, localizer=localizer.with_nre(**changes)))
    if name in RANSAC:
        key, _, stage = name.rpartition("_")
        rival = RIVALS[key]
        window = config.fine_window if stage == "fine" else None
        solve = partial(_solve_ransac, rival=rival, window=window, seed=config.seed)
        return Estimator(f"RE, {stage}: {rival.name}", MAPPED, solve, CELL_THRESHOLDS, "cells")
    if name in SIFT:
        assert equipment.sift is not None
        rival, enhance = equipment.sift_rival, name == "sift_enhanced"
        label = f"SIFT{', images enhanced' if enhance else ''}: {rival.name}"
        solve = partial(_solve_sift, sift=equipment.sift, rival=rival, enhance=enhance, seed=config.seed)
        return Estimator(label, RETRIEVED, solve, PIXEL_THRESHOLDS, "px")
    metric = equipment.aligned if name in FEATURE_METRIC else equipment.pixloc
    assert metric is not None
    whose = "our features" if name in FEATURE_METRIC else "PixLoc's"
    if name.endswith("_coarse"):
        solve = partial(_align_coarse, metric=metric, config=config)
        return Estimator(f"alignment of {whose}, from coarse NRE", MAPPED, solve)
    return Estimator(f"alignment of {whose}, from the keyframe", RETRIEVED, partial(_align_keyframe, metric=metric))


def _solve_ours(question: Question, _: float, *, localizer: Localizer) -> Pose | None:
    """The localizer itself, whatever it thinks of its answer."""
    found = localizer.search(question.view).map_from_cam
    return None if found is None else found.inverse()


@torch.inference_mode()
def _solve_ransac(
    question: Question, threshold_cells: float, *, rival: Rival, window: int | None, seed: int
) -> Pose | None:
    """On the best cells of the coarse maps; with a ``window`` (fine cells) then on those of the fine maps in windows
    around its own pose. A second time on the landmarks in view."""
    camera, asked = question.view.used, question.search

    def in_windows(asked: Evidence, pose: Pose) -> Pose | None:
        assert window is not None
        matches = _fine_matches(asked, camera, pose, window)
        return rival.solve(matches, threshold_cells * asked.fine.grid.stride, seed)

    def on_coarse(asked: Evidence, _: Pose | None = None) -> Pose | None:
        matches = best_cells(asked.candidates.xyz_map, asked.coarse, camera)
        return rival.solve(matches, threshold_cells * asked.coarse.grid.stride, seed)

    first = on_coarse(asked)
    if window is None:
        return twice(question, first, on_coarse)
    return twice(question, None if first is None else in_windows(asked, first) or first, in_windows)


def _fine_matches(asked: Evidence, camera: Camera, pose: Pose, window: int) -> Matches:
    """Best cells in fine windows around the projections of all landmarks in view."""
    xyz_map = asked.candidates.xyz_map
    uv_px, visible = camera.project(pose.to(xyz_map.device).transform(xyz_map))
    index = torch.nonzero(visible & camera.contains(uv_px))[:, 0]
    maps = asked.fine.maps(index, uv_px[index], torch.ones_like(uv_px[index, 0]), window)
    return best_cells(xyz_map[index], maps, camera)


@torch.inference_mode()
def _solve_sift(
    question: Question, threshold_px: float, *, sift: SiftMap, rival: Rival, enhance: bool, seed: int
) -> Pose | None:
    """Matched with the retrieved keyframes, and a second time with those around the first pose."""
    image = question.frame.image_rgb
    keypoints = sift.keypoints(enhanced(image) if enhance else image)

    def solve(stamps_ns: Sequence[int]) -> Pose | None:
        return rival.solve(sift.matches(keypoints, question.frame.camera, stamps_ns), threshold_px, seed)

    first = solve(question.stamps_ns(question.keyframes))
    return None if first is None else solve(question.stamps_near_ns(first)) or first


@torch.inference_mode()
def _align_coarse(question: Question, _: float, *, metric: FeatureMetric, config: NreConfig) -> Pose | None:
    asked = question.search
    start = estimate_pose(asked.candidates.xyz_map, question.view.used, asked.coarse, None, config).poses
    return metric.refine(question, None if start is None else start[0])


def _align_keyframe(question: Question, _: float, *, metric: FeatureMetric) -> Pose | None:
    return metric.refine(question, question.map_.map_from_keyframe[question.keyframes[0]].inverse())


def missing(names: Sequence[str], have: Mapping[str, bool]) -> list[str]:
    """Names that cannot run without what is not there: ``have`` says so for "poselib" and "pixloc"."""
    lacking = [name for name in names if name.startswith("poselib") and not have["poselib"]]
    return lacking + [name for name in names if name in PIXLOC and not have["pixloc"]]
