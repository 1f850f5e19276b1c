"""Whether to believe a pose, from what the loss maps say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from nre_ros.config import AcceptConfig
from nre_ros.nre import Estimate
from nre_ros.nre.covariance import GRID

EXPLAINED_SHARE_OF_CEILING = 0.3
"""A landmark is explained when its fine gain at the pose is at least this share of ln|Omega|."""


SPREAD_PARTS = 10.0
"""Effective number of the image's 8 x 8 parts with explained landmarks that scores 1. Landmarks in one corner do not
fix a pose, whatever its covariance says: of 55 poses accepted for office's hard queries, the only wrong one has 2.9,
the others 6.4 and more."""


@dataclass(frozen=True)
class Verdict:
    """``score`` 0 to 1 and, unless ``accepted``, the weakest point in words; ``ambiguous`` when a second hypothesis is
    all that speaks against the pose."""

    accepted: bool
    score: float
    reason: str
    ambiguous: bool = False


def judge(estimate: Estimate, median_depth: float, config: AcceptConfig) -> Verdict:
    """Score a pose by the worst of six things: how many landmarks it explains, how well it explains those that it puts
    into view, how they are spread over the image, how sure its rotation and its position are, and how far the
    second-best hypothesis is behind.

    Each is 1 at ``config``'s mark and falls in proportion; ``median_depth`` (map unit) scales the position's deviation.
    """
    if estimate.covariance is None or estimate.fine_share is None or estimate.rivalry is None:
        return Verdict(False, 0.0, "the explained landmarks do not fix a pose")
    assert estimate.in_view is not None and estimate.part is not None
    explained = estimate.fine_share >= EXPLAINED_SHARE_OF_CEILING
    share = float(explained.float().mean())
    in_view = int(estimate.in_view.sum())
    clarity = float((estimate.fine_share * explained).sum()) / max(in_view, 1)
    parts = _effective_parts(estimate.fine_share * explained, estimate.part)
    deviation = estimate.covariance.diagonal().clamp_min(0)
    rotation_deg = math.degrees(float(deviation[:3].sum().sqrt()))
    translation = float(deviation[3:].sum().sqrt()) / median_depth
    second = min(float(estimate.rivalry[1:].amax()), 1.0) if len(estimate.rivalry) > 1 else 0.0
    marks = {
        f"only {100 * share:.1f} % of {len(explained)} landmarks are explained": share / config.explained_share,
        f"the explained landmarks lie in {parts:.1f} of 64 parts of the image": parts / SPREAD_PARTS,
        f"the {in_view} landmarks in view are explained to {100 * clarity:.0f} % only": clarity / config.clarity,
        f"rotation is uncertain to {rotation_deg:.2f} deg": config.rotation_deg / max(rotation_deg, 1e-12),
        f"position is uncertain to {100 * translation:.1f} % of the depth": config.position / max(translation, 1e-12),
        f"another pose explains {100 * second:.0f} % as much": (1 - second) / config.margin,
    }
    reason, score = min(marks.items(), key=lambda item: item[1])
    score = min(score, 1.0)
    accepted = score >= config.min_score
    *others, lead = marks.values()
    return Verdict(accepted, score, "" if accepted else reason, ambiguous=lead < config.min_score <= min(others))


def _effective_parts(weight: Tensor, part: Tensor) -> float:
    """In how many parts of the image landmarks with ``weight`` (N,) would lie, were they evenly spread over these."""
    total = weight.new_zeros(GRID**2).index_add(0, part, weight)
    return float(total.sum() ** 2 / total.square().sum().clamp_min(1e-12))
