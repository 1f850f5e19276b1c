"""Whether errors are as large as the covariance says: NEES, and stated against observed confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2

from nre_ros.evaluation.metrics import Answer, Scale, is_wrong

PARTS = {"pose": slice(0, 6), "rotation": slice(0, 3), "translation": slice(3, 6)}
"""Of the twist that a covariance speaks of."""
LEVELS = np.linspace(0.05, 0.95, 19)
"""Stated confidences of the reliability plot."""


@dataclass(frozen=True)
class Consistency:
    """Squared errors in units of the covariance, of ``count`` accepted answers that have one.

    ``mean`` leaves out wrong answers (another mode, of which the covariance does not speak) and should be 6, ``median``
    5.35; ``within_95`` is the share inside the 95 % ellipsoid. ``inflation`` is the factor by which deviations would
    have to be wider for the median to be right: 1 is honest, more is too sure. The truth's own errors count in, too:
    they alone can explain a factor where the truth is not much better than the answers. ``observed`` has, by part of
    :data:`PARTS`, the share of answers inside the ellipsoid of each of :data:`LEVELS`: honest where the two agree.
    """

    count: int
    mean: float | None
    median: float
    inflation: float
    within_95: float
    observed: dict[str, list[float]]


def nees(answer: Answer, part: str = "pose") -> float | None:
    """Squared error of an accepted answer in units of its covariance; None without one, or without the truth."""
    if not answer.accepted or answer.map_from_cam is None or answer.truth is None or answer.covariance is None:
        return None
    error = (answer.map_from_cam.inverse() @ answer.truth).log()[PARTS[part]]
    covariance = answer.covariance[PARTS[part], PARTS[part]]
    try:
        value = float(error @ torch.linalg.solve(covariance, error))
    except torch.linalg.LinAlgError:
        return None
    return value if np.isfinite(value) and value >= 0 else None


def consistency(answers: Sequence[Answer], scale: Scale) -> Consistency | None:
    """None when no accepted answer has a covariance and a truth."""
    values = {part: np.array([v for a in answers if (v := nees(a, part)) is not None]) for part in PARTS}
    whole = values["pose"]
    if not len(whole):
        return None
    right = [v for a in answers if (v := nees(a)) is not None and not is_wrong(a, scale)]
    observed = {}
    for part, some in values.items():
        limits = chi2.ppf(LEVELS, PARTS[part].stop - PARTS[part].start)
        observed[part] = [float(np.mean(some <= limit)) if len(some) else 0.0 for limit in limits]
    return Consistency(
        count=len(whole),
        mean=float(np.mean(right)) if right else None,
        median=float(np.median(whole)),
        inflation=float(np.sqrt(np.median(whole) / chi2.median(6))),
        within_95=float(np.mean(whole <= chi2.ppf(0.95, 6))),
        observed=observed,
    )
