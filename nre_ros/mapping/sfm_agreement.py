"""Which poses of a structure from motion agree with the matches that they were made of.

A model may be bent, one part of it being in another scale than the rest, and still have small reprojection errors, as
what does not fit is no longer among its points. All matches together tell: in the right poses nearly all of them lie on
their epipolar lines, in bent ones many do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from nre_ros.geometry import Pose
from nre_ros.mapping.sfm_links import Links

Counts = dict[tuple[int, int], tuple[int, int]]
"""Of two views i < j: how many of their matches agree with their poses, and how many there are."""

EXPLAINED_PX = 1.0
"""A match agrees with two poses where it is as near to their epipolar lines."""
LEAST_SHARE = 0.85
"""Of the matches of a view that must agree with the poses, as a share of the median view's: of office's and
terrace's right poses nearly all have more, of wrong ones hardly any."""
CONTRADICTING_WEIGHT = 5.0
"""A match that contradicts a part outweighs as many that agree. Of all matches of right parts of office and terrace 86
to 97 % agreed, of bent ones 56 to 81 %: below 83 % a part has no support."""
LEAST_LINK_SHARE = 0.7
LEAST_LINK = 22
"""Matches that must agree for two views to hang together: of those with 15 to 18 a seventh is wrong."""
LEAST_LONE_LINK = 100
"""The same where no third view is linked to both: of office's links with 22 to 100 matches one in 25 is wrong, and
one is enough to hang a part on at the wrong place; of 248 with more, none."""


@dataclass(frozen=True)
class Part:
    """Views, by position, whose poses agree with their matches. ``support`` is how many of these do, less those that
    contradict times :data:`CONTRADICTING_WEIGHT`."""

    views: set[int]
    support: float


def agreeing_parts(links: Links, world_from_cam: dict[int, Pose]) -> list[Part]:
    """What remains of a model without the views that contradict it, best first."""
    counts: Counts = {}
    for (i, j), matched in links.matches.items():
        if i in world_from_cam and j in world_from_cam:
            counts[i, j] = (_explained(links, i, j, matched, world_from_cam[i], world_from_cam[j]), len(matched))
    kept = _without_contradicting(set(world_from_cam), counts)
    parts = []
    for views in _hanging_together(kept, counts):
        inner = [count for (i, j), count in counts.items() if i in views and j in views]
        support = sum(agreeing - CONTRADICTING_WEIGHT * (matched - agreeing) for agreeing, matched in inner)
        if support > 0:
            parts.append(Part(views, support))
    return sorted(parts, key=lambda part: -part.support)


def _explained(links: Links, i: int, j: int, matched: np.ndarray, world_from_i: Pose, world_from_j: Pose) -> int:
    """Matches within :data:`EXPLAINED_PX` by their angles to the epipolar planes (Sampson's error, on the sphere)."""
    j_from_i = world_from_j.inverse() @ world_from_i
    x, y, z = j_from_i.translation.tolist()
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ j_from_i.rotation.numpy()
    a, b = links.rays[i][matched[:, 0]], links.rays[j][matched[:, 1]]
    normal_j, normal_i = a @ essential.T, b @ essential
    scale = np.sqrt((normal_j**2).sum(1) + (normal_i**2).sum(1))
    angle = np.abs((b * normal_j).sum(1)) / np.maximum(scale, 1e-12)
    return int((angle * (links.focal_px[i] + links.focal_px[j]) / 2 < EXPLAINED_PX).sum())


def _without_contradicting(views: set[int], counts: Counts) -> set[int]:
    """The worst view goes first, for it spoils the share of those that it is linked to."""
    kept = set(views)
    while kept:
        explained, total = dict.fromkeys(kept, 0), dict.fromkeys(kept, 0)
        for (i, j), (agreeing, matched) in counts.items():
            if i in kept and j in kept:
                for view in (i, j):
                    explained[view] += agreeing
                    total[view] += matched
        share = {view: explained[view] / max(total[view], 1) for view in sorted(kept)}
        worst = min(share, key=lambda view: share[view])
        if share[worst] >= LEAST_SHARE * float(np.median(list(share.values()))) and share[worst] > 0:
            break
        kept.remove(worst)
    return kept


def _hanging_together(views: set[int], counts: Counts) -> list[set[int]]:
    """Components of the views by links that most of their matches agree with and a third view, or many matches, bear
    out."""
    order = sorted(views)
    place = {view: n for n, view in enumerate(order)}
    matches = np.zeros((len(order), len(order)), np.float32)
    for (i, j), (agreeing, matched) in counts.items():
        if i in views and j in views and agreeing >= LEAST_LINK_SHARE * matched:
            matches[place[i], place[j]] = matches[place[j], place[i]] = agreeing
    firm = (matches >= LEAST_LINK).astype(np.float32)
    borne_out = (firm > 0) & ((firm @ firm > 0) | (matches >= LEAST_LONE_LINK))
    count, labels = connected_components(borne_out, directed=False)
    return [{view for view, label in zip(order, labels, strict=True) if label == n} for n in range(count)]
