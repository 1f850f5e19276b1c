"""Which landmarks an image is asked about: those of the retrieved keyframes, so many from each, and of these the ones
that it answers most clearly.

Every keyframe gives as many as every other, so that a place has a share by the votes of retrieval. Only where two
places without common landmarks look alike to retrieval, the number of keyframes that a place happens to have says
nothing: they share evenly, so that each stays a hypothesis. Even shares for all places, however unlike the query, were
measured and are worse: on sparse maps in bad light the right keyframes' share falls from 51 to 36 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.features import DenseFeatures, FeatureMap
from nre_ros.mapping import Map
from nre_ros.mapping.descriptors import restored

LINKED_BY = 5
"""Landmarks in common that make two keyframes show one place."""
ALIKE = 0.9
"""A place whose best keyframe is so similar to the query, relative to the best of all, looks alike. On office and
terrace, whole maps in good light and sparse ones in bad, 4 of 158 queries retrieve two such places."""

POOL = 6
"""Landmarks looked at for each that is asked about."""
POOL_STRIDE = 16
"""Pixels a cell at which they are looked at; finer maps are averaged down to this."""


@dataclass(frozen=True)
class Candidates:
    """Landmarks that the retrieved keyframes propose: ``xyz_map`` (N, 3) float64, ``coarse`` (N, Cc) and ``fine``
    (N, Cf) float32 descriptors."""

    xyz_map: Tensor
    coarse: Tensor
    fine: Tensor


def landmarks_of(map_: Map, keyframes: Sequence[int]) -> Tensor:
    """Indices (N,) of the distinct landmarks that the keyframes see, some of each first."""
    return torch.from_numpy(_in_turn(_seen(map_, keyframes))).long()


def landmarks_to_ask(
    map_: Map, keyframes: Sequence[int], similarity: Sequence[float], seen: FeatureMap, most: int, device: torch.device
) -> Tensor:
    """Indices (N,) of at most ``most`` landmarks of the keyframes: those that the image, which is so similar to each
    keyframe and has the coarse features ``seen``, answers most clearly. Places that look alike have even shares."""
    groups = _groups(_seen(map_, keyframes), np.array(similarity))
    chosen = []
    for lists, share in groups:
        quota = int(most * share / len(keyframes))
        pool = torch.from_numpy(_in_turn(lists)[: POOL * quota]).long()
        chosen.append(most_certain(map_, pool, seen, quota, device))
    return torch.unique(torch.cat(chosen))


def most_certain(map_: Map, pool: Tensor, seen: FeatureMap, most: int, device: torch.device) -> Tensor:
    """The ``most`` landmarks of ``pool`` (M,) whose loss maps over ``seen``, averaged down, have the lowest minima.

    Most of what retrieved keyframes see is out of the query's view, above all in sparse maps, and has flat loss maps.
    Left out, it no longer crowds out the landmarks in view: of terrace's hard queries 92 % come right instead of 82 %,
    of office's extreme ones in a map of every sixth frame 57 % instead of 52 %.
    """
    if len(pool) <= most:
        return pool
    stored = restored(map_.arrays.coarse[pool], map_.arrays.coarse_scale[pool])
    cells = F.avg_pool2d(seen.values[None].float(), max(int(POOL_STRIDE // seen.grid.stride), 1), ceil_mode=True)[0]
    logits = seen.inverse_temperature * seen.mixed(stored).to(device) @ seen.mixed(cells.flatten(1).T).T
    clear = logits.amax(1) - logits.logsumexp(1)
    return pool[clear.topk(most).indices.sort().values.cpu()]


def describe(map_: Map, chosen: Tensor, features: DenseFeatures, device: torch.device) -> Candidates:
    """Landmarks ``chosen`` (N,) with their descriptors; nothing else leaves the map's file for ``device``.

    Raises MapError when the map holds what no map can.
    """
    arrays = map_.arrays
    xyz_map = sound_points(map_, chosen)

    def read(stored: Tensor, scale: Tensor, level: FeatureMap) -> Tensor:
        return level.mixed(restored(stored[chosen], scale[chosen])).to(device)

    return Candidates(
        xyz_map.to(device),
        read(arrays.coarse, arrays.coarse_scale, features.coarse),
        read(arrays.fine, arrays.fine_scale, features.fine),
    )


def sound_points(map_: Map, landmark: Tensor) -> Tensor:
    """Points (N, 3) of the landmarks; raises MapError for what loading does not look for in large maps."""
    inside = (landmark >= 0) & (landmark < map_.landmark_count)
    if bool(inside.all()):
        xyz_map = map_.arrays.xyz_map[landmark]
        if bool(torch.isfinite(xyz_map).all()):
            return xyz_map
    raise MapError("the map is damaged: a landmark is missing or not finite; see nre_ros map check, or copy it anew")


def _seen(map_: Map, keyframes: Sequence[int]) -> list[np.ndarray]:
    return [map_.arrays.landmark[map_.observations_of(k)].numpy() for k in keyframes]


def _in_turn(seen: list[np.ndarray]) -> np.ndarray:
    """Distinct landmarks, the first of every list, then the second of every list, and so on."""
    turn = np.concatenate([np.arange(len(landmark)) for landmark in seen])
    ordered = np.concatenate(seen)[np.argsort(turn, kind="stable")]
    _, first = np.unique(ordered, return_index=True)
    return ordered[np.sort(first)]


def _groups(seen: list[np.ndarray], similarity: np.ndarray) -> list[tuple[list[np.ndarray], float]]:
    """Lists of landmarks, one a keyframe, in groups with shares that add up to the number of lists: all in one, but
    places that look alike each in one of their own, which share evenly what their keyframes would get."""
    place = _places(seen)
    best = np.array([similarity[place == p].max() for p in range(place.max() + 1)])
    rivals = np.flatnonzero(best >= ALIKE * similarity.max())
    if len(rivals) < 2:
        return [(seen, len(seen))]
    others = [landmark for landmark, p in zip(seen, place, strict=True) if p not in rivals]
    each = (len(seen) - len(others)) / len(rivals)
    groups: list[tuple[list[np.ndarray], float]] = [
        ([seen[i] for i in np.flatnonzero(place == rival)], each) for rival in rivals
    ]
    return groups + ([(others, len(others))] if others else [])


def _places(seen: list[np.ndarray]) -> np.ndarray:
    """Number (n,) of the place that each keyframe shows: keyframes with landmarks in common, or linked by others that
    have, show the same."""
    owner = np.repeat(np.arange(len(seen)), [len(landmark) for landmark in seen])
    _, landmark = np.unique(np.concatenate(seen), return_inverse=True)
    sees = csr_matrix((np.ones(len(owner)), (owner, landmark)), shape=(len(seen), landmark.max(initial=0) + 1))
    common = (sees @ sees.T).toarray()
    return connected_components(common >= LINKED_BY, directed=False)[1]
