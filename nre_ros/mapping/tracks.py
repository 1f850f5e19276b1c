"""Which places in posed keyframes show the same landmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nre_ros.geometry import Pose
from nre_ros.geometry.pose import hat
from nre_ros.mapping.keypoints import Keypoints, match
from nre_ros.mapping.spots import Describe, Links, Spots, find_spots, no_spots
from nre_ros.mapping.triangulation import two_view_depths

NEIGHBOURS = 12
"""Other keyframes that each is matched with."""
SETTLED = 3
"""Keypoints of tracks of so many views are not looked for any more."""
GOOD_PARALLAX_DEG = 6.0
"""Parallax beyond which a wider baseline makes no better partner."""


@dataclass(frozen=True)
class View:
    """A keyframe as the matcher sees it: keypoints, unit ``bearings`` (N, 3) float64, its pose, pixels per radian."""

    keypoints: Keypoints
    bearings: Tensor
    map_from_cam: Pose
    focal_px: float
    median_depth: float | None = None


@dataclass(frozen=True)
class Tracks:
    """``track`` (M,) names the track of ``place`` (M,), counted through all views: each view's keypoints, then its
    ``spots``. A track has at least two places, all in different views."""

    track: np.ndarray
    place: np.ndarray
    spots: list[Spots]


def track_keypoints(
    views: Sequence[View],
    measured: Sequence[Tensor],
    max_epipolar_px: float,
    tell: Callable[[str, int, int], None],
    describe: Describe | None = None,
) -> Tracks:
    """Which places show the same landmark.

    Known poses confine every match to its epipolar line, which finds more matches and fewer wrong ones. Keypoints of
    no track of :data:`SETTLED` views are then looked for in other views by the network's descriptors, but for those
    whose depth is ``measured`` (masks (N,), one a view). Matches are joined surest first, and never so that a track
    would hold two places of one view.
    """
    pairs = _partners(views, _depths(views, max_epipolar_px, lambda i, n: tell("depths", i, n)))
    matches = _match_all(views, pairs, max_epipolar_px, lambda i, n: tell("matching", i, n))
    counts = np.array([len(view.keypoints) for view in views])
    track = _join([matches], counts)
    spots = [no_spots() for _ in views]
    if describe is not None:
        spots, found = _found_again(views, measured, pairs, _sizes(track), describe, tell)
        track = _join([matches, found], counts + [len(mine) for mine in spots])
    place = np.flatnonzero(_sizes(track) > 1)
    return Tracks(np.unique(track[place], return_inverse=True)[1], place, spots)


def _found_again(
    views: Sequence[View],
    measured: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    size: np.ndarray,
    describe: Describe,
    tell: Callable[[str, int, int], None],
) -> tuple[list[Spots], Links]:
    counts = [len(view.keypoints) for view in views]
    wanted = [
        np.flatnonzero((mine < SETTLED) & ~known.numpy())
        for mine, known in zip(np.split(size, np.cumsum(counts)[:-1]), measured, strict=True)
    ]
    uv_px = [view.keypoints.uv_px for view in views]
    return find_spots(uv_px, wanted, pairs, describe, lambda i, n: tell("wide baselines", i, n))


def _match_all(
    views: Sequence[View],
    pairs: Sequence[tuple[int, int]],
    max_epipolar_px: float,
    progress: Callable[[int, int], None],
) -> Links:
    ends, places, doubt = [np.zeros((0, 2), int)], [np.zeros((0, 2), int)], [np.zeros(0)]
    for done, (i, j) in enumerate(pairs):
        matched, ratio = _match_views(views[i], views[j], max_epipolar_px)
        ends.append(np.tile([i, j], (len(matched), 1)))
        places.append(matched)
        doubt.append(ratio)
        progress(done + 1, len(pairs))
    return Links(np.concatenate(ends), np.concatenate(places), np.concatenate(doubt))


def _sizes(track: np.ndarray) -> np.ndarray:
    return np.bincount(track)[track] if len(track) else np.zeros(0, int)


def _join(kinds: Sequence[Links], counts: np.ndarray) -> np.ndarray:
    """Track (K,) of every place, ``counts`` of them in each view: links of the first kind join before those of the
    second, each surest first."""
    first = np.cumsum(counts) - counts
    ordered = [np.argsort(links.doubt, kind="stable") for links in kinds]
    edges = [(links.places + first[links.views])[order] for links, order in zip(kinds, ordered, strict=True)]
    return _components(np.concatenate(edges), np.repeat(np.arange(len(counts)), counts))


def _components(edges: np.ndarray, view_of: np.ndarray) -> np.ndarray:
    """Component (K,) of every keypoint after adding ``edges`` (E, 2) in turn, save those that bring one view twice."""
    root = list(range(len(view_of)))
    views: dict[int, set[int]] = {}

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    for left, right in edges.tolist():
        a, b = find(left), find(right)
        if a == b:
            continue
        seen_a = views.get(a) or {int(view_of[a])}
        seen_b = views.get(b) or {int(view_of[b])}
        if seen_a.isdisjoint(seen_b):
            if len(seen_a) < len(seen_b):
                a, b, seen_a, seen_b = b, a, seen_b, seen_a
            root[b] = a
            seen_a.update(seen_b)
            views[a] = seen_a
            views.pop(b, None)
    return np.array([find(node) for node in range(len(view_of))], int)


def _match_views(a: View, b: View, max_epipolar_px: float) -> tuple[np.ndarray, np.ndarray]:
    return match(a.keypoints, b.keypoints, _epipolar_px(a, b) < max_epipolar_px)


def _epipolar_px(a: View, b: View) -> Tensor:
    """Distance (Na, Nb) of each keypoint pair from satisfying the epipolar constraint: the larger of both images'.

    An angle times the focal length, so that it holds for any lens.
    """
    b_from_a = b.map_from_cam.inverse() @ a.map_from_cam
    essential = hat(b_from_a.translation) @ b_from_a.rotation
    essential = (essential / essential.norm().clamp_min(1e-300)).float()
    bearings_a, bearings_b = a.bearings.float(), b.bearings.float()
    planes_b = bearings_a @ essential.T
    planes_a = bearings_b @ essential
    product = (planes_b @ bearings_b.T).abs()
    tiny = 1e-9
    in_b = product / planes_b.norm(dim=1).clamp_min(tiny)[:, None] * b.focal_px
    in_a = product / planes_a.norm(dim=1).clamp_min(tiny)[None] * a.focal_px
    return in_a.maximum(in_b)


def _depths(views: Sequence[View], max_epipolar_px: float, progress: Callable[[int, int], None]) -> list[float]:
    """Median depth of what each view sees: as given, else from matches with the next and next but one view."""
    found: list[float | None] = [view.median_depth for view in views]
    for i, view in enumerate(views):
        progress(i + 1, len(views))
        if found[i] is not None:
            continue
        samples = []
        for j in (i - 2, i - 1, i + 1, i + 2):
            if 0 <= j < len(views):
                matched, _ = _match_views(view, views[j], max_epipolar_px)
                samples.append(
                    two_view_depths(
                        view.bearings[matched[:, 0]],
                        views[j].bearings[matched[:, 1]],
                        view.map_from_cam.inverse() @ views[j].map_from_cam,
                    )
                )
        depth = torch.cat(samples) if samples else torch.zeros(0)
        found[i] = float(depth.median()) if len(depth) >= 8 else None
    known = [d for d in found if d is not None]
    fallback = float(np.median(known)) if known else 1.0
    return [fallback if d is None else d for d in found]


def _partners(views: Sequence[View], depths: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs worth matching: much overlap and, up to a point, much parallax; always the neighbours in time."""
    pairs = {(i, i + 1) for i in range(len(views) - 1)} | {(i, i + 2) for i in range(len(views) - 2)}
    rotation = torch.stack([v.map_from_cam.rotation for v in views])
    centre = torch.stack([v.map_from_cam.translation for v in views])
    for i, view in enumerate(views):
        if not len(view.bearings):
            continue
        sample = view.map_from_cam.transform(view.bearings[:: max(1, len(view.bearings) // 32)] * depths[i])
        rays = sample[None] - centre[:, None]
        cosine = (torch.nn.functional.normalize(rays, dim=-1) * rotation[:, None, :, 2]).sum(-1)
        overlap = (cosine > _half_field(view)).double().mean(1)
        parallax = torch.rad2deg(torch.atan((centre - centre[i]).norm(dim=-1) / depths[i]))
        score = overlap * (parallax / GOOD_PARALLAX_DEG).clamp(max=1) * (parallax < 40)
        score[i] = 0
        best = score.topk(min(NEIGHBOURS, len(views)))
        pairs |= {(min(i, int(j)), max(i, int(j))) for s, j in zip(*best, strict=True) if s > 0.05}
    return sorted(pairs)


def _half_field(view: View) -> float:
    """Cosine of the angle from the optical axis within which nine in ten of the view's keypoints lie."""
    return float(view.bearings[:, 2].quantile(0.1)) if len(view.bearings) else 1.0
