"""Smaller maps: fewer landmarks that still cover every keyframe's image, and no keyframe that another one replaces."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.mapping.coverage import COLUMNS, ROWS, observation_cells
from nre_ros.mapping.map import Map, MapArrays
from nre_ros.mapping.subset import KEYFRAME_ARRAYS, LANDMARK_ARRAYS, OBSERVATION_ARRAYS, keyframe_of, subset

REPLACED_SHARE = 0.9
"""A keyframe adds nothing when one other keyframe sees this share of its landmarks."""
KEYFRAMES_SHARE = 0.5
"""Of a limited size, the keyframes may take this much; more of them are left out until they do."""


def prune(
    map_: Map, *, max_landmarks: int | None = None, max_bytes: int | None = None, min_observations: int = 1
) -> Map:
    """The most useful landmarks (see :func:`ranked_landmarks`) within these limits, and the keyframes worth keeping.

    Raises MapError when the limits leave nothing.
    """
    seen = map_.sightings
    if int(seen.max()) < min_observations:
        raise MapError(f"no landmark is seen by {min_observations} keyframes; the most seen is by {int(seen.max())}")
    map_ = subset(map_, seen >= min_observations, torch.ones(map_.keyframe_count, dtype=torch.bool))
    most = map_.keyframe_count
    if max_bytes is not None:
        most = max(int(KEYFRAMES_SHARE * max_bytes / _row_bytes(map_, KEYFRAME_ARRAYS)), 1)
    map_ = subset(map_, torch.ones(map_.landmark_count, dtype=torch.bool), _worth_keeping(map_, most))
    if max_landmarks is not None and max_landmarks < map_.landmark_count:
        map_ = _first(map_, ranked_landmarks(map_), max_landmarks)
    if max_bytes is not None and array_bytes(map_) > max_bytes:
        map_ = _within(map_, max_bytes)
    return map_


def ranked_landmarks(map_: Map) -> np.ndarray:
    """All landmarks (L,), the most useful first.

    Each in turn is the one that adds most to what is chosen already: for every keyframe that sees it, one over how
    many are chosen in the same cell of that keyframe's image, plus one. So the often seen come first, and no part of
    an image is left empty for the sake of another.
    """
    keyframe, cell = observation_cells(map_)
    order = torch.argsort(map_.arrays.landmark, stable=True)
    place = (keyframe * (COLUMNS * ROWS) + cell)[order].tolist()
    start = np.concatenate([[0], map_.sightings.numpy().cumsum()]).tolist()
    chosen = [0] * (map_.keyframe_count * COLUMNS * ROWS)

    def gain(landmark: int) -> float:
        return sum(1 / (1 + chosen[p]) for p in place[start[landmark] : start[landmark + 1]])

    ranked = []
    for landmark, _ in _greedy(map_.landmark_count, gain):
        ranked.append(landmark)
        for p in place[start[landmark] : start[landmark + 1]]:
            chosen[p] += 1
    return np.array(ranked)


def array_bytes(map_: Map) -> int:
    """Bytes of all arrays: the file's size but for its header."""
    return sum(getattr(map_.arrays, item.name).nbytes for item in fields(MapArrays))


def _worth_keeping(map_: Map, most: int) -> Tensor:
    """Mask (K,) of at most ``most`` keyframes, without those that add nothing.

    The keyframe that shares most of its landmarks with another goes first; each is judged by those still there.
    """
    landmark, keyframe = map_.arrays.landmark.numpy(), keyframe_of(map_).numpy()
    shape = (map_.keyframe_count, map_.landmark_count)
    sees = csr_matrix((np.ones(len(landmark), np.int32), (keyframe, landmark)), shape)
    together = (sees @ sees.T).tocsr()
    together.setdiag(0)
    counts = np.bincount(keyframe, minlength=map_.keyframe_count)
    kept = np.ones(map_.keyframe_count, bool)

    def shared(k: int) -> float:
        row = slice(together.indptr[k], together.indptr[k + 1])
        return float((together.data[row] * kept[together.indices[row]]).max(initial=0) / counts[k])

    for k, share in _greedy(map_.keyframe_count, shared):
        if share < REPLACED_SHARE and kept.sum() <= most:
            break
        kept[k] = False
    return torch.from_numpy(kept)


def _greedy(count: int, gain: Callable[[int], float]) -> Iterator[tuple[int, float]]:
    """Items 0 to ``count`` - 1 with their gains, always the highest next; gains may fall, but never rise, meanwhile."""
    heap = [(-gain(i), i) for i in range(count)]
    heapq.heapify(heap)
    while heap:
        _, best = heapq.heappop(heap)
        now = gain(best)
        if heap and -now > heap[0][0]:
            heapq.heappush(heap, (-now, best))
            continue
        yield best, now


def _first(map_: Map, ranked: np.ndarray, count: int) -> Map:
    chosen = torch.zeros(map_.landmark_count, dtype=torch.bool)
    chosen[torch.from_numpy(ranked[:count].copy())] = True
    return subset(map_, chosen, torch.ones(map_.keyframe_count, dtype=torch.bool))


def _within(map_: Map, max_bytes: int) -> Map:
    """As many of the ranked landmarks as fit beside the keyframes. Raises MapError when not one does."""
    ranked = ranked_landmarks(map_)
    seen = map_.sightings.numpy()[ranked]
    costs = np.cumsum(_row_bytes(map_, LANDMARK_ARRAYS) + seen * _row_bytes(map_, OBSERVATION_ARRAYS))
    fixed = array_bytes(map_) - int(costs[-1])
    fitting = int(np.searchsorted(costs, max_bytes - fixed, side="right"))
    if fitting == 0:
        raise MapError(
            f"{max_bytes / 1e6:.2f} MB hold no landmark: {fixed / 1e6:.2f} MB go to retrieval and "
            f"{map_.keyframe_count} keyframes; ask for more"
        )
    return _first(map_, ranked, fitting)


def _row_bytes(map_: Map, names: tuple[str, ...]) -> int:
    """Of one landmark, keyframe or observation."""
    return sum(getattr(map_.arrays, name)[:1].nbytes for name in names)
