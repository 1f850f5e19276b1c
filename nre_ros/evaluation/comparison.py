"""Estimators on the same questions, and the figures that compare them.

No estimator may decline here: every pose counts as its answer, however unsure. So a recall says how often the pose is
right, and nothing of how well an estimator knows that it is; for that see the acceptance of ``nre_ros evaluate``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nre_ros.errors import RecordingError
from nre_ros.evaluation.estimators import Estimator
from nre_ros.evaluation.metrics import DEPTH_RECALL_LIMITS, RECALL_LIMITS
from nre_ros.evaluation.questions import Question
from nre_ros.geometry import Pose, pose_error

CHOOSING = 10
"""Queries, spread over all, on which every setting is tried. They count in the figures too, at the best setting."""
GOOD_DEPTH, GOOD_DEG = 0.01, 1.0
"""What makes a pose good when settings are compared: share of the map's depth, angle."""


@dataclass(frozen=True)
class Attempt:
    """An answer: ``map_from_cam`` or None; ``ms`` from image to pose; errors are infinite without a pose."""

    stamp_ns: int
    map_from_cam: Pose | None
    angle_deg: float
    distance: float
    ms: float


@dataclass(frozen=True)
class Row:
    """An estimator's figures: recalls of all queries, medians over all queries (None: most have no pose).

    ``setting`` is the one that was best on :data:`CHOOSING` queries, None where there is nothing to set.
    """

    label: str
    setting: str | None
    queries: int
    answered: int
    recall: Mapping[str, float]
    recall_of_depth: Mapping[str, float]
    median_rotation_deg: float | None
    median_translation: float | None
    median_ms: float
    attempts: tuple[Attempt, ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON; poses as TUM lines (stamp tx ty tz qx qy qz qw) of those queries that got one."""
        figures = {name: value for name, value in vars(self).items() if name != "attempts"}
        return figures | {"poses": [_line(a) for a in self.attempts if a.map_from_cam is not None]}


def compare(
    asked: Callable[[], Iterable[Question]],
    estimators: Mapping[str, Estimator],
    settings: Mapping[str, float],
    depth: float,
) -> dict[str, Row]:
    """Ask everybody, each at its setting. ``depth`` is the map's median. Raises RecordingError without questions."""
    attempts: dict[str, list[Attempt]] = {name: [] for name in estimators}
    for question in asked():
        for name, estimator in estimators.items():
            attempts[name].append(_attempt(estimator, question, settings[name]))
    if not all(attempts.values()):
        raise RecordingError("the recording has no query; check the recording and --split")
    return {name: _row(estimator, settings[name], attempts[name], depth) for name, estimator in estimators.items()}


def best_settings(
    asked: Callable[[], Iterable[Question]], total: int, estimators: Mapping[str, Estimator], depth: float
) -> dict[str, float]:
    """By name, what gives most good poses on :data:`CHOOSING` of about ``total`` questions, which ``asked`` gives the
    same every time; among equals that of the smaller median angle."""
    best = {name: estimator.settings[0] for name, estimator in estimators.items()}
    several = {name: estimator for name, estimator in estimators.items() if len(estimator.settings) > 1}
    if not several:
        return best
    tried: dict[str, dict[float, list[Attempt]]] = {n: {s: [] for s in e.settings} for n, e in several.items()}
    for i, question in enumerate(asked()):
        if i % max(total // CHOOSING, 1) == 0:
            for name, estimator in several.items():
                for setting in estimator.settings:
                    tried[name][setting].append(_attempt(estimator, question, setting))

    def merit(attempts: Sequence[Attempt]) -> tuple[int, float]:
        good = sum(a.distance <= GOOD_DEPTH * depth and a.angle_deg <= GOOD_DEG for a in attempts)
        return good, -float(np.median([a.angle_deg for a in attempts])) if attempts else -math.inf

    return best | {name: max(by_setting, key=lambda s: merit(by_setting[s])) for name, by_setting in tried.items()}


def _attempt(estimator: Estimator, question: Question, setting: float) -> Attempt:
    began = time.perf_counter()
    found = estimator.solve(question, setting)
    ms = 1e3 * (time.perf_counter() - began) + question.ms_until(estimator.needs)
    if found is None or not found.is_finite():
        return Attempt(question.frame.stamp_ns, None, math.inf, math.inf, ms)
    map_from_cam = found.to("cpu").inverse()
    angle, distance = pose_error(map_from_cam, question.truth.inverse())
    return Attempt(question.frame.stamp_ns, map_from_cam, float(angle), float(distance), ms)


def _row(estimator: Estimator, setting: float, attempts: Sequence[Attempt], depth: float) -> Row:
    angle, distance = (np.array([getattr(a, name) for a in attempts]) for name in ("angle_deg", "distance"))

    def share(limit: float, degrees: float) -> float:
        return float(np.mean((distance <= limit) & (angle <= degrees)))

    return Row(
        estimator.label,
        f"{setting:g} {estimator.unit}" if estimator.unit else None,
        len(attempts),
        sum(a.map_from_cam is not None for a in attempts),
        {name: share(*limits) for name, limits in RECALL_LIMITS.items()},
        {name: share(part * depth, degrees) for name, (part, degrees) in DEPTH_RECALL_LIMITS.items()},
        _median(angle),
        _median(distance),
        float(np.median([a.ms for a in attempts])),
        tuple(attempts),
    )


def _median(errors: np.ndarray) -> float | None:
    """The upper of two middles, so that it is an error that occurred, None where it is infinite."""
    middle = float(np.sort(errors)[len(errors) // 2])
    return middle if math.isfinite(middle) else None


def _line(attempt: Attempt) -> str:
    pose = attempt.map_from_cam
    assert pose is not None
    numbers = " ".join(f"{v:.9f}" for v in [*pose.translation.tolist(), *pose.quat_xyzw().tolist()])
    return f"{attempt.stamp_ns // 10**9}.{attempt.stamp_ns % 10**9:09d} {numbers}"
