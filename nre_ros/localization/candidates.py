"""Which landmarks an image is asked about: those of the retrieved keyframes, so many from each.

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


@dataclass(frozen=True)
class Candidates:
    """Landmarks that the retrieved keyframes propose: ``xyz_map`` (N, 3) float64, ``coarse`` (N, Cc) and ``fine``
    (N, Cf) float32 descriptors."""

    xyz_map: Tensor
    coarse: Tensor
    fine: Tensor


def landmarks_of(map_: Map, keyframes: Sequence[int], similarity: Sequence[float] | None = None) -> Tensor:
    """Indices (N,) of the distinct landmarks that the keyframes see, some of each first.

    With ``similarity`` of the keyframes to the query, places that look alike have even shares.
    """
    seen = [map_.arrays.landmark[map_.observations_of(k)].numpy() for k in keyframes]
    shares = np.ones(len(seen))
    if similarity is not None:
        seen, shares = _rivals_merged(seen, np.array(similarity))
    return torch.from_numpy(_in_turn(seen, shares)).long()


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


def _in_turn(seen: list[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Distinct landmarks, the first of every list, then the second of every list, and so on; a list with share 2 gives
    its second and third when the others give their second."""
    turn = np.concatenate([np.arange(len(landmark)) / share for landmark, share in zip(seen, shares, strict=True)])
    ordered = np.concatenate(seen)[np.argsort(turn, kind="stable")]
    _, first = np.unique(ordered, return_index=True)
    return ordered[np.sort(first)]


def _rivals_merged(seen: list[np.ndarray], similarity: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Lists of landmarks and their shares: one a keyframe, but one a place of those that look alike, which share
    evenly what their keyframes would get."""
    place = _places(seen)
    best = np.array([similarity[place == p].max() for p in range(place.max() + 1)])
    rivals = np.flatnonzero(best >= ALIKE * similarity.max())
    if len(rivals) < 2:
        return seen, np.ones(len(seen))
    members = [np.flatnonzero(place == rival) for rival in rivals]
    others = [landmark for landmark, p in zip(seen, place, strict=True) if p not in rivals]
    merged = [_in_turn([seen[i] for i in index], np.ones(len(index))) for index in members]
    each = (len(seen) - len(others)) / len(rivals)
    return merged + others, np.array([each] * len(merged) + [1.0] * len(others))


def _places(seen: list[np.ndarray]) -> np.ndarray:
    """Number (n,) of the place that each keyframe shows: keyframes with landmarks in common, or linked by others that
    have, show the same."""
    owner = np.repeat(np.arange(len(seen)), [len(landmark) for landmark in seen])
    _, landmark = np.unique(np.concatenate(seen), return_inverse=True)
    sees = csr_matrix((np.ones(len(owner)), (owner, landmark)), shape=(len(seen), landmark.max(initial=0) + 1))
    common = (sees @ sees.T).toarray()
    return connected_components(common >= LINKED_BY, directed=False)[1]
