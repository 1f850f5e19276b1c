"""Whether to believe a pose, from what the loss maps say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nre_ros.localization.calibration import Calibration
from nre_ros.nre import Estimate
from nre_ros.nre.covariance import GRID

EXPLAINED_SHARE_OF_CEILING = 0.3
"""A landmark is explained when its fine gain at the pose is at least this share of ln|Omega|."""

FEW = 0.2
"""So much of the mean number of landmarks in a part is added to those of each part, without gain: where one or two are
in view, chance explains them all."""

UNSURE_DEG = 2.0
UNSURE_POSITION = 0.08
"""Standard deviations of the rotation and of the position (share of the depth of what is seen) beyond which a pose is
of no use, whatever image it is of."""

LEAST_PARTS = 4.0
"""Effective number of parts of the image that must hold explained landmarks, however clear these are. Three points have
up to four poses, which a fourth tells apart; landmarks that lie close together are as one point."""

LEAST_LEAD = 0.05
"""A second hypothesis less than this behind (share of the first one's gain) makes a pose ambiguous. It is no matter of
how good the image looks: the first of two twins looks as good as any."""


@dataclass(frozen=True)
class Verdict:
    """``score`` 0 to 1, at least 0.5 where ``accepted``, and unless it is, the weakest point in words; ``ambiguous``
    when a second hypothesis is all that speaks against the pose. ``support`` as :func:`judge` says, 0 where something
    else speaks against the pose."""

    accepted: bool
    score: float
    reason: str
    ambiguous: bool = False
    support: float = 0.0


def judge(estimate: Estimate, depth: float, calibration: Calibration, false_accept_rate: float) -> Verdict:
    """Score a pose by the worst of five things: its support, how its landmarks are spread over the image, how sure its
    rotation and its position are, and how far the second-best hypothesis is behind. Each is 1 where it just suffices,
    and x of the worst scores x / (1 + x).

    Support is how much of the image is explained times the root of the lead, the share of it that the second hypothesis
    does not explain: where many poses explain an image about as well, none explains it. It suffices if no more than a
    share of ``false_accept_rate`` of the images of other places have as much. ``depth``, map unit, of what is seen.
    """
    if estimate.covariance is None or estimate.fine_share is None or estimate.rivalry is None:
        return Verdict(False, 0.0, "the explained landmarks do not fix a pose")
    deviation = estimate.covariance.diagonal().clamp_min(0)
    rotation_deg = math.degrees(float(deviation[:3].sum().sqrt()))
    position = float(deviation[3:].sum().sqrt()) / depth
    second = min(float(estimate.rivalry[1:].amax()), 1.0) if len(estimate.rivalry) > 1 else 0.0
    explained, spread = _explained_parts(estimate)
    support, least = explained * math.sqrt(1 - second), calibration.least_support(false_accept_rate)
    limits = {
        f"the explained landmarks lie in {spread:.1f} of 64 parts of the image": spread / LEAST_PARTS,
        f"rotation is uncertain to {rotation_deg:.2f} deg": UNSURE_DEG / max(rotation_deg, 1e-12),
        f"position is uncertain to {100 * position:.1f} % of the depth": UNSURE_POSITION / max(position, 1e-12),
    }
    lead = {f"another pose explains {100 * second:.0f} % as much": (1 - second) / LEAST_LEAD}
    told = f"{explained:.1f} of 64 parts of the image are explained, {100 * second:.0f} % by another pose too"
    enough = {f"{told}: support {support:.2f} of {least:.2f}": support / least}
    reason, worst = min((lead | limits | enough).items(), key=lambda item: item[1])
    of_use, ahead = min(limits.values()) >= 1, 1 - second >= LEAST_LEAD
    return Verdict(
        accepted=worst >= 1,
        score=worst / (1 + worst),
        reason="" if worst >= 1 else reason,
        ambiguous=of_use and not ahead and explained * math.sqrt(LEAST_LEAD) >= least,
        support=support if of_use and ahead else 0.0,
    )


def _explained_parts(estimate: Estimate) -> tuple[float, float]:
    """How many of the 64 parts of the image are explained, and the effective number of them that this is spread over.

    Of each part counts the gain of the explained landmarks as a share of what all in view there could gain, with
    :data:`FEW` added. So clarity and spread count together: in the dark a right pose explains little of each part but
    many parts, one of another place a few landmarks that lie together. How many were asked about does not matter.
    """
    assert estimate.fine_share is not None and estimate.in_view is not None and estimate.part is not None
    gain = estimate.fine_share * (estimate.fine_share >= EXPLAINED_SHARE_OF_CEILING)
    zero = gain.new_zeros(GRID**2)
    gained = zero.index_add(0, estimate.part, gain)
    in_view = zero.index_add(0, estimate.part, estimate.in_view.to(gain))
    explained = (gained / (in_view + FEW * in_view.mean() + 1e-6)).sum()
    return float(explained), float(gained.sum() ** 2 / gained.square().sum().clamp_min(1e-12))
