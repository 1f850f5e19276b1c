"""Places in views where keypoints of other views were found again, though no detector marked them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from nre_ros.mapping.guided import DenseView, Found, Points, find_points

SAME_PX = 1.5
"""Places nearer to each other than this are one."""
CACHE_BYTES = 400 * 2**20
"""Feature maps kept at a time; views out of it are described anew."""

Describe = Callable[[int], DenseView]


@dataclass(frozen=True)
class Spots:
    """``uv_px`` (S, 2) float64, with the network's ``coarse`` (S, Cc) and ``fine`` (S, Cf) float16 there."""

    uv_px: np.ndarray
    coarse: Tensor
    fine: Tensor

    def __len__(self) -> int:
        return len(self.uv_px)


def no_spots() -> Spots:
    nothing = torch.zeros((0, 0), dtype=torch.float16)
    return Spots(np.zeros((0, 2)), nothing, nothing)


@dataclass(frozen=True)
class Links:
    """Keypoint ``a`` of view ``views[0]`` is place ``b`` of view ``views[1]``: a keypoint or, counted on after these, a
    spot. ``views`` (E, 2), ``places`` (E, 2), ``doubt`` (E,) 0 to 1."""

    views: np.ndarray
    places: np.ndarray
    doubt: np.ndarray


def find_spots(
    keypoints: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
    describe: Describe,
    progress: Callable[[int, int], None],
) -> tuple[list[Spots], Links]:
    """Look for the ``wanted`` keypoints (indices, one array a view) in the other view of each pair.

    ``keypoints`` are pixels (N, 2), one array a view. Returns a :class:`Spots` a view.
    """
    cached = _Cache(describe)
    places = [_Places(uv_px) for uv_px in keypoints]
    links: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for done, (i, j) in enumerate(pairs):
        for a, b in ((i, j), (j, i)):
            if len(wanted[a]):
                seen_from, view = cached(a), cached(b)
                uv_px = torch.from_numpy(keypoints[a][wanted[a]])
                found = find_points(seen_from.points_at(uv_px), seen_from, view)
                places[b].admit(found, view)
                ends = np.stack([wanted[a][found.point.numpy()], places[b].name(found.uv_px.numpy())], 1)
                links.append((np.tile([a, b], (len(ends), 1)), ends, found.doubt.numpy()))
        progress(done + 1, len(pairs))
    gathered = [np.concatenate(column) for column in zip(*links, strict=True)] if links else _nothing()
    return [place.spots() for place in places], Links(*gathered)


def _nothing() -> list[np.ndarray]:
    return [np.zeros((0, 2), int), np.zeros((0, 2), int), np.zeros(0)]


class _Places:
    """Keypoints of a view and the spots found so far."""

    def __init__(self, keypoints_px: np.ndarray) -> None:
        self._uv_px = keypoints_px
        self._keypoints = len(keypoints_px)
        self._tree = cKDTree(keypoints_px) if len(keypoints_px) else None
        self._described: list[Points] = []

    def admit(self, found: Found, view: DenseView) -> None:
        """Make spots of what was found where nothing is yet, surest first."""
        uv_px = found.uv_px.numpy()
        order = np.argsort(found.doubt.numpy(), kind="stable")
        new = order[self._nearest(uv_px[order]) < 0]
        if len(new) > 1:
            close = cKDTree(uv_px[new]).query_pairs(SAME_PX, output_type="ndarray")
            new = np.delete(new, np.unique(close.max(1)) if len(close) else [])
        if len(new):
            self._uv_px = np.concatenate([self._uv_px, uv_px[new]])
            self._tree = cKDTree(self._uv_px)
            self._described.append(view.points_at(torch.from_numpy(uv_px[new])))

    def name(self, uv_px: np.ndarray) -> np.ndarray:
        """Indices (M,) of the nearest place to each pixel: after admission there is one, or almost."""
        if self._tree is None or not len(uv_px):
            return np.zeros(0, int)
        return np.asarray(self._tree.query(uv_px)[1], int)

    def spots(self) -> Spots:
        if not self._described:
            return no_spots()
        coarse = torch.cat([points.coarse for points in self._described]).half()
        fine = torch.cat([points.fine for points in self._described]).half()
        return Spots(self._uv_px[self._keypoints :], coarse, fine)

    def _nearest(self, uv_px: np.ndarray) -> np.ndarray:
        """Index (M,) of the place within :data:`SAME_PX` of each pixel, -1 where there is none."""
        if self._tree is None or not len(uv_px):
            return np.full(len(uv_px), -1)
        distance, index = self._tree.query(uv_px, distance_upper_bound=SAME_PX)
        return np.where(np.isfinite(distance), index, -1)


class _Cache:
    """The views described last, as many as fit into :data:`CACHE_BYTES`."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._views: OrderedDict[int, DenseView] = OrderedDict()

    def __call__(self, index: int) -> DenseView:
        if index not in self._views:
            self._views[index] = self._describe(index)
            size = sum(level.values.nbytes for level in vars(self._views[index].features).values())
            while len(self._views) > max(2, CACHE_BYTES // max(size, 1)):
                self._views.popitem(last=False)
        self._views.move_to_end(index)
        return self._views[index]
