"""Answers against the truth, as figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.errors import RecordingError
from nre_ros.evaluation.intervals import Interval, bootstrap_interval, share_interval
from nre_ros.geometry import Pose, pose_error

RECALL_LIMITS = {"0.05m_5deg": (0.05, 5.0), "0.25m_2deg": (0.25, 2.0), "0.5m_5deg": (0.5, 5.0), "5m_10deg": (5.0, 10.0)}
"""Name to largest distance (map unit) and angle (degrees)."""
DEPTH_RECALL_LIMITS = {"1%_1deg": (0.01, 1.0), "5%_5deg": (0.05, 5.0)}
"""Name to largest distance (share of a depth) and angle (degrees): for maps without a unit, and scenes of any size."""
WRONG_METRES, WRONG_SHARE_OF_DEPTH, WRONG_DEG = 0.5, 0.05, 10.0
"""An accepted pose further off than either is wrong: in metres, or where the map's unit is none, by the depth."""
PERCENTILES = (50, 75, 90, 95)
LATENCY_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Answer:
    """One query: ``map_from_cam`` is None when nothing was found; ``truth`` None when it is not known.

    ``status`` and ``reason`` as in :class:`nre_ros.localization.Localization`; only "accepted" answers count as given.
    ``view_depth`` is the median depth of the landmarks that the true pose sees, map unit. ``covariance`` (6, 6) as in
    :class:`nre_ros.localization.Localization`. ``score`` and ``latency_ms`` are NaN where they are not known.
    """

    stamp_ns: int
    name: str
    status: str
    reason: str
    score: float
    map_from_cam: Pose | None
    truth: Pose | None
    latency_ms: float
    stages_ms: dict[str, float]
    view_depth: float | None = None
    covariance: torch.Tensor | None = None

    @property
    def accepted(self) -> bool:
        return self.status == "accepted"

    def error(self) -> tuple[float, float]:
        """Angle (degrees) and distance (map unit) from the truth; infinite without a pose."""
        if self.map_from_cam is None or self.truth is None:
            return float("inf"), float("inf")
        angle, distance = pose_error(self.map_from_cam, self.truth)
        return float(angle), float(distance)


@dataclass(frozen=True)
class Scale:
    """What a distance in a map means: its ``unit`` ("metre", or another) and its ``median_depth`` in that unit."""

    unit: str = "metre"
    median_depth: float = math.inf

    def wrong_distance(self, answer: Answer) -> float:
        """From which on the answer is wrong, map unit."""
        if self.unit == "metre":
            return WRONG_METRES
        return WRONG_SHARE_OF_DEPTH * (self.median_depth if answer.view_depth is None else answer.view_depth)

    @property
    def wrong_words(self) -> str:
        near = (
            f"{WRONG_METRES:g} m" if self.unit == "metre" else f"{100 * WRONG_SHARE_OF_DEPTH:g} % of the view's depth"
        )
        return f"{near} or {WRONG_DEG:g} deg"


def is_off(answer: Answer, scale: Scale) -> bool:
    """Whether the pose, given as an answer or not, is wrong; infinitely so without a pose."""
    angle, distance = answer.error()
    return distance > scale.wrong_distance(answer) or angle > WRONG_DEG


def is_wrong(answer: Answer, scale: Scale) -> bool:
    """Whether it was given as an answer, and should not have been."""
    return answer.accepted and is_off(answer, scale)


@dataclass(frozen=True)
class Summary:
    """Figures over all queries.

    Recalls count accepted answers over all queries; ``recall_of_depth`` is by shares of ``median_depth``, that of the
    whole map, ``recall_of_view_depth`` by shares of what each query itself looks at. ``coverage`` is the share of
    queries answered. Medians and percentiles are of accepted answers, None or empty if there are none. ``wrong`` counts
    accepted answers by :func:`is_wrong`. ``intervals`` are those of 95 %, by the name of the figure.
    """

    queries: int
    accepted: int
    wrong: int
    coverage: float
    recall: dict[str, float]
    recall_of_depth: dict[str, float]
    recall_of_view_depth: dict[str, float]
    median_depth: float
    median_rotation_deg: float | None
    median_translation: float | None
    rotation_deg: dict[str, float]
    translation: dict[str, float]
    latency_ms: dict[str, float]
    stages_ms: dict[str, dict[str, float]]
    intervals: dict[str, Interval | None]

    def as_dict(self, answers: Sequence[Answer]) -> dict[str, object]:
        """For JSON, with one line a query: TUM format (stamp tx ty tz qx qy qz qw), then status, score and reason."""
        return {**vars(self), "poses": [pose_line(answer) for answer in answers]}


def summarise(answers: Sequence[Answer], median_depth: float, unit: str = "metre") -> Summary:
    """Raises RecordingError when there is no query or none has a true pose: such figures would say nothing."""
    judged = [answer for answer in answers if answer.truth is not None]
    if not judged:
        raise RecordingError(
            f"none of {len(answers)} queries has a true pose to compare with; check the split and the recording's poses"
        )
    scale = Scale(unit, median_depth)
    angle, distance = np.array([answer.error() for answer in judged]).T
    accepted = np.array([answer.accepted for answer in judged])
    wrong = np.array([is_wrong(answer, scale) for answer in judged])
    view_depth = np.array([median_depth if a.view_depth is None else a.view_depth for a in judged])
    within: dict[str, np.ndarray] = {}

    def shares(limits: dict[str, tuple[float, float]], unit_length: float | np.ndarray, group: str) -> dict[str, float]:
        hits = {k: accepted & (distance <= far * unit_length) & (angle <= deg) for k, (far, deg) in limits.items()}
        within.update({f"{group}.{name}": hit for name, hit in hits.items()})
        return {name: float(hit.mean()) for name, hit in hits.items()}

    recalls = {
        "recall": shares(RECALL_LIMITS, 1.0, "recall"),
        "recall_of_depth": shares(DEPTH_RECALL_LIMITS, median_depth, "recall_of_depth"),
        "recall_of_view_depth": shares(DEPTH_RECALL_LIMITS, view_depth, "recall_of_view_depth"),
    }
    within["coverage"] = accepted
    intervals = {name: share_interval(int(hit.sum()), len(judged)) for name, hit in within.items()}
    intervals["wrong"] = share_interval(int(wrong.sum()), int(accepted.sum()))
    intervals["median_rotation_deg"] = bootstrap_interval(angle[accepted])
    intervals["median_translation"] = bootstrap_interval(distance[accepted])
    return Summary(
        queries=len(judged),
        accepted=int(accepted.sum()),
        wrong=int(wrong.sum()),
        coverage=float(accepted.mean()),
        **recalls,
        median_depth=median_depth,
        median_rotation_deg=float(np.median(angle[accepted])) if accepted.any() else None,
        median_translation=float(np.median(distance[accepted])) if accepted.any() else None,
        rotation_deg=_percentiles(angle[accepted], PERCENTILES),
        translation=_percentiles(distance[accepted], PERCENTILES),
        latency_ms=_percentiles(np.array([a.latency_ms for a in judged]), LATENCY_PERCENTILES),
        stages_ms=stage_percentiles(judged),
        intervals=intervals,
    )


def stage_percentiles(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Latency by stage, of the queries that came to it; the order is that of the stages."""
    names = dict.fromkeys(name for answer in answers for name in answer.stages_ms if name != "total")
    times = {name: [a.stages_ms[name] for a in answers if name in a.stages_ms] for name in names}
    return {name: _percentiles(np.array(values), LATENCY_PERCENTILES) for name, values in times.items()}


def _percentiles(values: np.ndarray, percentiles: Sequence[int]) -> dict[str, float]:
    """Of the finite values; empty of none."""
    finite = values[np.isfinite(values)]
    return {f"p{q}": float(np.percentile(finite, q)) for q in percentiles} if len(finite) else {}


def pose_line(answer: Answer) -> str:
    numbers = ["nan"] * 7
    if answer.map_from_cam is not None:
        pose = answer.map_from_cam
        numbers = [f"{v:.9f}" for v in [*pose.translation.tolist(), *pose.quat_xyzw().tolist()]]
    seconds = f"{answer.stamp_ns // 10**9}.{answer.stamp_ns % 10**9:09d}"
    return " ".join([seconds, *numbers, answer.status, f"{answer.score:.4f}", answer.reason]).rstrip()
