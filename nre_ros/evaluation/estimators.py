"""The estimators of a comparison: NRE, parts of it, the classical ones on its maps, feature-metric ones, SIFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from nre_ros.config import NreConfig
from nre_ros.errors import ConfigError
from nre_ros.evaluation.feature_metric import FeatureMetric
from nre_ros.evaluation.questions import COARSE, MAPPED, RETRIEVED, Question
from nre_ros.evaluation.rivals import RIVALS, Matches, Rival, best_cells
from nre_ros.evaluation.sift import SiftMap, enhanced
from nre_ros.geometry import Pose
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


OURS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "nre": ("NRE: MSAC, coarse and fine GNC", {}, True),
    "msac": ("MSAC alone", {"skip_gnc": True}, False),
    "msac_coarse": ("MSAC, coarse GNC", {}, False),
    "re": ("RE in our estimator (Eq. 11)", {"use_re": True}, True),
    "fpr": ("FPR (Eq. 12) from coarse NRE", {"refinement": "fpr"}, True),
}
"""Label, what of the configuration changes, and whether there is a fine stage."""

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


def estimators(names: Sequence[str], config: NreConfig, equipment: Equipment) -> dict[str, Estimator]:
    """By name, in the order given; ``equipment`` must hold what they need."""
    return {name: _estimator(name, config, equipment) for name in names}


def _estimator(name: str, config: NreConfig, equipment: Equipment) -> Estimator:
    if name in OURS:
        label, changes, fine = OURS[name]
        return Estimator(label, MAPPED, partial(_solve_ours, config=replace(config, **changes), fine=fine))
    if name in RANSAC:
        key, _, stage = name.rpartition("_")
        rival, needs = RIVALS[key], MAPPED if stage == "coarse" else COARSE
        window = config.fine_window if stage == "fine" else None
        solve = partial(_solve_ransac, rival=rival, window=window, seed=config.seed)
        return Estimator(f"RE, {stage}: {rival.name}", needs, solve, CELL_THRESHOLDS, "cells")
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
        return Estimator(f"alignment of {whose}, from coarse NRE", COARSE, partial(_align_coarse, metric))
    return Estimator(f"alignment of {whose}, from the keyframe", RETRIEVED, partial(_align_keyframe, metric))


@torch.inference_mode()
def _solve_ours(question: Question, _: float, *, config: NreConfig, fine: bool) -> Pose | None:
    stage = question.fine if fine else None
    found = estimate_pose(question.candidates.xyz_map, question.view.used, question.loss_maps, stage, config)
    return None if found.poses is None else found.poses[0].to("cpu")


@torch.inference_mode()
def _solve_ransac(
    question: Question, threshold_cells: float, *, rival: Rival, window: int | None, seed: int
) -> Pose | None:
    """On the best cells of the coarse maps, or of fine windows around the coarse NRE's projections."""
    if window is None:
        matches = best_cells(question.candidates.xyz_map, question.loss_maps, question.view.used)
        stride = question.loss_maps.grid.stride
    elif (found := _fine_matches(question, window)) is not None:
        matches, stride = found, question.fine.grid.stride
    else:
        return None
    return rival.solve(matches, threshold_cells * stride, seed)


def _fine_matches(question: Question, window: int) -> Matches | None:
    """None where the coarse NRE found no pose."""
    if question.start.poses is None:
        return None
    xyz_map, camera = question.candidates.xyz_map, question.view.used
    uv_px, visible = camera.project(question.start.poses[0].transform(xyz_map))
    index = torch.nonzero(visible & camera.contains(uv_px))[:, 0]
    maps = question.fine.maps(index, uv_px[index], torch.ones_like(uv_px[index, 0]), window)
    return best_cells(xyz_map[index], maps, camera)


@torch.inference_mode()
def _solve_sift(
    question: Question, threshold_px: float, *, sift: SiftMap, rival: Rival, enhance: bool, seed: int
) -> Pose | None:
    image = question.frame.image_rgb
    asked = enhanced(image) if enhance else image
    matches = sift.matches(asked, question.frame.camera, question.keyframe_stamps_ns)
    return rival.solve(matches, threshold_px, seed)


def _align_coarse(metric: FeatureMetric, question: Question, _: float) -> Pose | None:
    poses = question.start.poses
    return metric.refine(question, None if poses is None else poses[0])


def _align_keyframe(metric: FeatureMetric, question: Question, _: float) -> Pose | None:
    return metric.refine(question, question.map_.map_from_keyframe[question.keyframes[0]].inverse())


def missing(names: Sequence[str], have: Mapping[str, bool]) -> list[str]:
    """Names that cannot run without what is not there: ``have`` says so for "poselib" and "pixloc"."""
    lacking = [name for name in names if name.startswith("poselib") and not have["poselib"]]
    return lacking + [name for name in names if name in PIXLOC and not have["pixloc"]]
