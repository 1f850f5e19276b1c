"""Answers against the truth, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nre_ros.errors import RecordingError
from nre_ros.geometry import Pose, pose_error

RECALL_LIMITS = {"0.05m_5deg": (0.05, 5.0), "0.25m_2deg": (0.25, 2.0), "0.5m_5deg": (0.5, 5.0), "5m_10deg": (5.0, 10.0)}
"""Name to largest distance (map unit) and angle (degrees)."""
DEPTH_RECALL_LIMITS = {"1%_1deg": (0.01, 1.0), "5%_5deg": (0.05, 5.0)}
"""Name to largest distance (share of a depth) and angle (degrees): for maps without a unit, and scenes of any size."""
WRONG_METRES, WRONG_DEG = 0.5, 10.0
"""An accepted pose further off than either is wrong."""


@dataclass(frozen=True)
class Answer:
    """One query: ``map_from_cam`` is None when nothing was found; ``truth`` None when it is not known.

    ``status`` and ``reason`` as in :class:`nre_ros.localization.Localization`; only "accepted" answers count as given.
    ``view_depth`` is the median depth of the landmarks that the true pose sees, map unit.
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
class Summary:
    """Figures over all queries.

    Recalls count accepted answers over all queries; ``recall_of_depth`` is by shares of ``median_depth``, that of the
    whole map, ``recall_of_view_depth`` by shares of what each query itself looks at. Medians are of accepted answers,
    None if there are none. ``wrong`` counts accepted answers beyond :data:`WRONG_METRES` (map unit) or
    :data:`WRONG_DEG`.
    """

    queries: int
    accepted: int
    wrong: int
    recall: dict[str, float]
    recall_of_depth: dict[str, float]
    recall_of_view_depth: dict[str, float]
    median_depth: float
    median_rotation_deg: float | None
    median_translation: float | None
    latency_ms: dict[str, float]
    stages_ms: dict[str, float]

    def as_dict(self, answers: Sequence[Answer]) -> dict[str, object]:
        """For JSON, with one line a query: TUM format (stamp tx ty tz qx qy qz qw), then status, score and reason."""
        return {**vars(self), "poses": [pose_line(answer) for answer in answers]}


def summarise(answers: Sequence[Answer], median_depth: float) -> Summary:
    """Raises RecordingError when there is no query or none has a true pose: such figures would say nothing."""
    judged = [answer for answer in answers if answer.truth is not None]
    if not judged:
        raise RecordingError(
            f"none of {len(answers)} queries has a true pose to compare with; check the split and the recording's poses"
        )
    angle, distance = np.array([answer.error() for answer in judged]).T
    accepted = np.array([answer.accepted for answer in judged])

    def share(limit: float | np.ndarray, degrees: float) -> float:
        return float(np.mean(accepted & (distance <= limit) & (angle <= degrees)))

    view_depth = np.array([median_depth if a.view_depth is None else a.view_depth for a in judged])
    latency = [answer.latency_ms for answer in judged]
    stages = {name: [a.stages_ms[name] for a in judged if name in a.stages_ms] for name in judged[0].stages_ms}
    return Summary(
        queries=len(judged),
        accepted=int(accepted.sum()),
        wrong=int((accepted & ((distance > WRONG_METRES) | (angle > WRONG_DEG))).sum()),
        recall={name: share(*limits) for name, limits in RECALL_LIMITS.items()},
        recall_of_depth={name: share(s * median_depth, deg) for name, (s, deg) in DEPTH_RECALL_LIMITS.items()},
        recall_of_view_depth={name: share(s * view_depth, deg) for name, (s, deg) in DEPTH_RECALL_LIMITS.items()},
        median_depth=median_depth,
        median_rotation_deg=float(np.median(angle[accepted])) if accepted.any() else None,
        median_translation=float(np.median(distance[accepted])) if accepted.any() else None,
        latency_ms={f"p{q}": float(np.percentile(latency, q)) for q in (50, 95)},
        stages_ms={name: float(np.median(values)) for name, values in stages.items()},
    )


def pose_line(answer: Answer) -> str:
    numbers = ["nan"] * 7
    if answer.map_from_cam is not None:
        pose = answer.map_from_cam
        numbers = [f"{v:.9f}" for v in [*pose.translation.tolist(), *pose.quat_xyzw().tolist()]]
    seconds = f"{answer.stamp_ns // 10**9}.{answer.stamp_ns % 10**9:09d}"
    return " ".join([seconds, *numbers, answer.status, f"{answer.score:.4f}", answer.reason]).rstrip()
