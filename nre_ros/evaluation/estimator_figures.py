"""Poses against the truth, and what many of them come to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from nre_ros.geometry import Pose, pose_error

SUCCESS_DEG, SUCCESS_POSITION = 1.0, 0.1
FOUND_DEG, FOUND_POSITION = 5.0, 0.5
"""A pose further off is another mode; the covariance speaks of the one found, and NEES is not asked of it."""
TWIST = 6


@dataclass(frozen=True)
class Attempt:
    """One pose against the truth: angle (deg) and distance (map units), infinite without a pose; ``forward``, how far
    the camera's centre lies ahead of the true one along the true axis; ``nees``, the squared error in units of the
    covariance, None where the estimator gives none."""

    rotation_deg: float
    position: float
    forward: float
    ms: float
    nees: float | None = None

    @property
    def found(self) -> bool:
        return self.rotation_deg < FOUND_DEG and self.position < FOUND_POSITION


@dataclass(frozen=True)
class Nees:
    """Mean over ``count`` poses found, to lie in the 95 % interval ``low`` to ``high`` around 6 if the covariance is
    honest. ``lost`` poses were not found, or had no covariance."""

    mean: float
    low: float
    high: float
    count: int
    lost: int


@dataclass(frozen=True)
class Figures:
    """One method at one stage of one case: medians over the seeds; ``success`` is the share within 1 deg and 0.1 units;
    ``forward`` is the mean of the poses found, with its standard error. ``threshold`` in cells, rivals only."""

    rotation_deg: float
    position: float
    success: float
    ms: float
    forward: float
    forward_error: float
    threshold: float | None = None
    nees: Nees | None = None


def judged(pose: Pose | None, truth: Pose, ms: float, covariance: Tensor | None = None) -> Attempt:
    """Both poses are ``cam_from_map``; ``covariance`` (6, 6) is of the twist x in ``exp(x) @ pose``."""
    if pose is None:
        return Attempt(math.inf, math.inf, math.nan, ms)
    angle, distance = pose_error(pose.inverse(), truth.inverse())
    centre = (truth @ pose.inverse()).translation
    squared = None
    if covariance is not None:
        twist = (truth @ pose.inverse()).log()
        squared = float(twist @ torch.linalg.solve(covariance, twist))
    return Attempt(float(angle), float(distance), float(centre[2]), ms, squared)


def figures_of(attempts: Sequence[Attempt], threshold: float | None = None) -> Figures:
    rotation, position, ms = np.array([(attempt.rotation_deg, attempt.position, attempt.ms) for attempt in attempts]).T
    forward = np.array([attempt.forward for attempt in attempts if attempt.found])
    return Figures(
        float(np.median(rotation)),
        float(np.median(position)),
        float(np.mean((rotation < SUCCESS_DEG) & (position < SUCCESS_POSITION))),
        float(np.median(ms)),
        float(forward.mean()) if len(forward) else math.nan,
        float(forward.std(ddof=1) / len(forward) ** 0.5) if len(forward) > 1 else math.nan,
        threshold,
        nees_of(attempts),
    )


def nees_of(attempts: Iterable[Attempt]) -> Nees | None:
    """None when no attempt has both a pose that was found and a covariance."""
    attempts = list(attempts)
    values = [attempt.nees for attempt in attempts if attempt.found and attempt.nees is not None]
    if not values:
        return None
    count = len(values)
    low, high = chi2.ppf([0.025, 0.975], TWIST * count) / count
    return Nees(float(np.mean(values)), float(low), float(high), count, len(attempts) - count)


def shares_worse(coarse: Sequence[Attempt], fine: Sequence[Attempt]) -> tuple[float, float]:
    """Share of the seeds where the fine pose is further off than the coarse one: in rotation, in position."""
    pairs = list(zip(coarse, fine, strict=True))
    rotation = np.mean([after.rotation_deg > before.rotation_deg for before, after in pairs])
    return float(rotation), float(np.mean([after.position > before.position for before, after in pairs]))


def as_json(value: object) -> object:
    """Dataclasses as dictionaries; numbers that are not finite as null, for which JSON has no other word."""
    if hasattr(value, "__dataclass_fields__"):
        return as_json(asdict(value))  # type: ignore[call-overload]
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
