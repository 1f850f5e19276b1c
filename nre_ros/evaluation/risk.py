"""What a threshold on the score buys: how many queries are answered, how many of the answers are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nre_ros.evaluation.metrics import Answer, Scale, is_off


@dataclass(frozen=True)
class RiskCurve:
    """If every pose of at least ``threshold`` (T,) were given as an answer, from the strictest on: ``coverage``, the
    share of queries answered, ``risk``, the share of these answers that are wrong, and ``false_accepts``, the share of
    negatives answered (None without negatives). ``area`` under risk over coverage: smaller is better.
    """

    threshold: list[float]
    coverage: list[float]
    risk: list[float]
    false_accepts: list[float] | None
    area: float


def risk_curve(answers: Sequence[Answer], negatives: Sequence[Answer], scale: Scale) -> RiskCurve | None:
    """Over queries with a truth; None when none of them has a pose with a score."""
    judged = [a for a in answers if a.truth is not None]
    found = [a for a in judged if a.map_from_cam is not None and np.isfinite(a.score)]
    if not found:
        return None
    scores = np.array([a.score for a in found])
    off = np.array([is_off(a, scale) for a in found])
    thresholds = np.unique(scores)[::-1]
    given = scores[None] >= thresholds[:, None]
    coverage = given.sum(1) / len(judged)
    risk = (given & off).sum(1) / given.sum(1)
    false = None
    if negatives:
        others = np.array([a.score if a.map_from_cam is not None else -np.inf for a in negatives])
        false = (others[None] >= thresholds[:, None]).mean(1).tolist()
    steps = np.diff(coverage, prepend=0.0)
    return RiskCurve(thresholds.tolist(), coverage.tolist(), risk.tolist(), false, float((risk * steps).sum()))
