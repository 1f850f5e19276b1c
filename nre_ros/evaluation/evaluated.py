"""One evaluation, whole: every figure that is told, and what it was of."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from nre_ros.evaluation.baseline import RECORDS, records_of
from nre_ros.evaluation.consistency import Consistency, consistency
from nre_ros.evaluation.intervals import Interval, share_interval
from nre_ros.evaluation.metrics import Answer, Scale, Summary, summarise
from nre_ros.evaluation.offline import view_depth
from nre_ros.evaluation.retrieval_recall import RetrievalJudge, RetrievalSummary, Retrieved, summarise_retrieval
from nre_ros.evaluation.risk import RiskCurve, risk_curve
from nre_ros.evaluation.trajectories import evo_figures
from nre_ros.evaluation.truth import AlignedTruth, align_truth, require_moving_truth
from nre_ros.geometry import Camera
from nre_ros.mapping import Map


@dataclass(frozen=True)
class Asked:
    """A query and all that its figures need; ``ranking``, the keyframes most like it, empty where nobody ranked."""

    answer: Answer
    camera: Camera
    ranking: tuple[int, ...] = ()


@dataclass(frozen=True)
class Negatives:
    """Queries of another place: the right answer is none. ``accepted`` of them were answered all the same."""

    queries: int
    accepted: int
    share: float
    interval: Interval | None


@dataclass(frozen=True)
class Evaluation:
    """Figures of the answers to ``recording`` in the map; None for what there is nothing of.

    ``transform`` has those of the published transforms, where a node answered; ``peak_memory_mb`` is of this process
    (the map's file counts as far as it was read), ``peak_gpu_mb`` of what torch took on the GPU, neither where a node
    answered.
    """

    recording: str
    scale: Scale
    answers: list[Answer]
    summary: Summary
    retrieval: RetrievalSummary | None
    retrieved: list[Retrieved]
    negative_answers: dict[str, list[Answer]]
    negatives: dict[str, Negatives]
    risk: RiskCurve | None
    consistency: Consistency | None
    trajectory: dict[str, dict[str, float]] | None
    alignment: AlignedTruth | None
    transform: Summary | None = None
    notes: dict[str, str] = field(default_factory=dict)
    """What was asked besides, such as degradations; for the reader."""
    peak_memory_mb: float | None = None
    peak_gpu_mb: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""

        def fields(value: object) -> dict[str, object] | None:
            return None if value is None else dict(vars(value))

        return {
            "recording": self.recording,
            **self.notes,
            "unit": self.scale.unit,
            "wrong_beyond": self.scale.wrong_words,
            "retrieval": self.retrieval.as_dict(self.retrieved) if self.retrieval else None,
            **self.summary.as_dict(self.answers),
            "negatives": {name: vars(some) for name, some in self.negatives.items()},
            "risk": fields(self.risk),
            "nees": fields(self.consistency),
            "trajectory": self.trajectory,
            "alignment": self.alignment.as_dict() if self.alignment else None,
            "transform": fields(self.transform),
            "peak_memory_mb": self.peak_memory_mb,
            "peak_gpu_mb": self.peak_gpu_mb,
            RECORDS: records_of(self.answers, self.scale),
        }


def evaluate(
    recording: str,
    map_: Map,
    asked: Sequence[Asked],
    *,
    negatives: Mapping[str, Sequence[Answer]] | None = None,
    align: str | None = None,
    by_transform: Sequence[Answer] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Evaluation:
    """All figures of queries with a truth. ``align`` as in :func:`align_truth`; ``by_transform`` are the same queries,
    as the published transforms answer them.

    Raises RecordingError where figures would say nothing: no query, no truth, one that never moves.
    """
    scale = Scale(map_.unit, map_.median_depth)
    answers = [item.answer for item in asked]
    require_moving_truth(answers)
    alignment = align_truth(answers, align, map_.median_depth) if align else None
    if alignment is not None:
        answers = alignment.answers
    answers = [_with_depth(map_, item, answer) for item, answer in zip(asked, answers, strict=True)]
    judge = RetrievalJudge(map_)
    retrieved = [
        judge.judge(answer.stamp_ns, item.ranking, item.camera, answer.truth)
        for item, answer in zip(asked, answers, strict=True)
        if item.ranking and answer.truth is not None
    ]
    others = {name: list(some) for name, some in (negatives or {}).items()}
    transform, here = None, by_transform is None
    if by_transform is not None:
        known = [replace(t, truth=a.truth, view_depth=a.view_depth) for t, a in zip(by_transform, answers, strict=True)]
        transform = summarise(known, map_.median_depth, map_.unit)
    return Evaluation(
        recording=recording,
        scale=scale,
        answers=answers,
        summary=summarise(answers, map_.median_depth, map_.unit),
        retrieval=summarise_retrieval(retrieved) if retrieved else None,
        retrieved=retrieved,
        negative_answers=others,
        negatives={name: _negatives(some) for name, some in others.items()},
        risk=risk_curve(answers, [a for some in others.values() for a in some], scale),
        consistency=consistency(answers, scale),
        trajectory=evo_figures(answers),
        alignment=alignment,
        transform=transform,
        notes=dict(notes or {}),
        peak_memory_mb=_peak_memory_mb() if here else None,
        peak_gpu_mb=torch.cuda.max_memory_allocated() / 2**20 if here and torch.cuda.is_available() else None,
    )


def _with_depth(map_: Map, item: Asked, answer: Answer) -> Answer:
    if answer.truth is None:
        return answer
    return replace(answer, view_depth=view_depth(map_, item.ranking, item.camera, answer.truth))


def _negatives(answers: Sequence[Answer]) -> Negatives:
    accepted = sum(answer.accepted for answer in answers)
    return Negatives(len(answers), accepted, accepted / max(len(answers), 1), share_interval(accepted, len(answers)))


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux, bytes on macOS
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
