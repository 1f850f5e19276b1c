"""Two maps of one place, in one frame: what both saw becomes one, the rest stands side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.mapping.descriptors import quantised, restored
from nre_ros.mapping.inspection import reprojection_errors_px
from nre_ros.mapping.map import Map
from nre_ros.mapping.subset import KEYFRAME_ARRAYS, LANDMARK_ARRAYS, keyframe_of

NEAR_SHARE = 0.03
"""Landmarks further apart than this share of their distance from the cameras are not the same."""
NEIGHBOURS = 8
"""Nearest landmarks that are compared by descriptor."""
ALIKE = 0.8
"""Least mean cosine of the coarse and fine descriptors of one landmark in two maps."""
FUSED_ERROR_PX = 4.0
"""Largest reprojection error of any observation, of either map, of a landmark made of two."""
UNIT_TOLERANCE = 0.02
"""Descriptors that are all this near to unit length are of a network that makes them so: means are made so again."""


@dataclass(frozen=True)
class Pairs:
    """Landmarks of two maps that are the same: indices ``first`` and ``second`` (P,) int64."""

    first: Tensor
    second: Tensor

    def __len__(self) -> int:
        return len(self.first)

    def only(self, mask: Tensor) -> Pairs:
        return Pairs(self.first[mask], self.second[mask])


def check_mergeable(first: Map, second: Map) -> None:
    """Raises MapError unless the maps may become one: different ones of the same network and unit."""
    if first.digest == second.digest:
        raise MapError("both maps are the same one; merge a map with one of another session")
    made, other = ((m.network_name, m.network_hash) for m in (first, second))
    if made != other:
        raise MapError(
            f"the first map was made by network {made[0]} ({made[1]}), the second by {other[0]} ({other[1]}); "
            "build one of them again with the other's network and weights"
        )
    if first.unit == "arbitrary" and second.unit != "arbitrary":
        raise MapError(
            f"the first map's unit is arbitrary, the second's {second.unit}; name the second first: the "
            "merged map keeps the frame and the unit of the first"
        )


def same_landmarks(first: Map, second: Map, slack: float) -> Pairs:
    """Landmarks of two maps in one frame that are near each other, alike, and each other's best.

    Near is within :data:`NEAR_SHARE` of the distance from which the second map saw them, plus ``slack`` (map unit),
    what the frames may be off.
    """
    a, b = first.arrays, second.arrays
    radius = NEAR_SHARE * _distances(second) + slack
    apart, near = cKDTree(a.xyz_map.numpy()).query(b.xyz_map.numpy(), k=min(NEIGHBOURS, first.landmark_count))
    apart, near = torch.from_numpy(apart.reshape(len(radius), -1)), torch.from_numpy(near.reshape(len(radius), -1))
    second_of, column = torch.nonzero(apart <= radius[:, None], as_tuple=True)
    first_of = near[second_of, column]
    alike = torch.zeros(len(first_of))
    for level in ("coarse", "fine"):
        one, other = (F.normalize(_descriptors(m, level), dim=1) for m in (first, second))
        alike += (one[first_of] * other[second_of]).sum(1) / 2
    mutual = _is_best(second_of, alike) & _is_best(first_of, alike)
    return Pairs(first_of, second_of).only(mutual & (alike > ALIKE))


def join(first: Map, second: Map, pairs: Pairs) -> tuple[Map, int]:
    """One map of both, the second's frame being the first's, and how many landmarks were fused.

    The second's ``keyframe_global`` must be of the first's vocabulary. Of the pairs, only those are fused whose mean
    place, weighted by observations, agrees with every observation of both.
    """
    both = _side_by_side(first, second)
    seen = both.sightings.double()
    second_row = pairs.second + first.landmark_count
    share = (seen[pairs.first] / (seen[pairs.first] + seen[second_row]))[:, None]
    a = both.arrays
    xyz_map = a.xyz_map.clone()
    middle = share * xyz_map[pairs.first] + (1 - share) * xyz_map[second_row]
    xyz_map[pairs.first], xyz_map[second_row] = middle, middle
    errors_px = reprojection_errors_px(replace(both, arrays=replace(a, xyz_map=xyz_map))).nan_to_num(nan=torch.inf)
    worst = torch.zeros(both.landmark_count).scatter_reduce_(0, a.landmark.long(), errors_px.float(), "amax")
    agreed = torch.maximum(worst[pairs.first], worst[second_row]) <= FUSED_ERROR_PX
    return _fused(both, pairs.first[agreed], second_row[agreed], middle[agreed], share[agreed]), int(agreed.sum())


def _side_by_side(first: Map, second: Map) -> Map:
    cameras = tuple(dict.fromkeys((*first.cameras, *second.cameras)))
    number = torch.tensor([cameras.index(camera) for camera in second.cameras], dtype=torch.int32)
    a, b = first.arrays, second.arrays
    if a.keyframe_global.shape[1] != b.keyframe_global.shape[1]:
        raise MapError("the second map's keyframes are not described for retrieval as the first's are")
    names = (*LANDMARK_ARRAYS, *KEYFRAME_ARRAYS, "uv_px")
    arrays = replace(
        replace(a, **{name: torch.cat([getattr(a, name), getattr(b, name)]) for name in names}),
        keyframe_camera=torch.cat([a.keyframe_camera, number[b.keyframe_camera.long()]]),
        keyframe_start=torch.cat([a.keyframe_start, b.keyframe_start[1:] + first.observation_count]),
        landmark=torch.cat([a.landmark, b.landmark + first.landmark_count]),
    )
    return replace(first, cameras=cameras, arrays=arrays, file=None)


def _fused(both: Map, kept: Tensor, dropped: Tensor, xyz_map: Tensor, share: Tensor) -> Map:
    """Landmarks ``dropped`` become ``kept``, at ``xyz_map``; ``share`` (P, 1) is the kept one's weight."""
    a = both.arrays
    changed: dict[str, Tensor] = {"xyz_map": a.xyz_map.clone()}
    changed["xyz_map"][kept] = xyz_map
    for level in ("coarse", "fine"):
        one, other = _descriptors(both, level, kept), _descriptors(both, level, dropped)
        mean = share.float() * one + (1 - share.float()) * other
        if bool(((one.norm(dim=1) - 1).abs() < UNIT_TOLERANCE).all()):
            mean = F.normalize(mean, dim=1)
        values, scale = getattr(a, level).clone(), getattr(a, f"{level}_scale").clone()
        values[kept], scale[kept] = quantised(mean)
        changed |= {level: values, f"{level}_scale": scale}
    target = torch.arange(both.landmark_count)
    target[dropped] = kept
    remains = torch.ones(both.landmark_count, dtype=torch.bool)
    remains[dropped] = False
    number = torch.cumsum(remains, 0) - 1
    landmark = number[target[a.landmark.long()]].int()
    changed = {name: changed.get(name, getattr(a, name))[remains] for name in LANDMARK_ARRAYS}
    return replace(both, arrays=replace(a, landmark=landmark, **changed))


def _descriptors(map_: Map, level: str, rows: Tensor | slice = slice(None)) -> Tensor:
    return restored(getattr(map_.arrays, level)[rows], getattr(map_.arrays, f"{level}_scale")[rows])


def _distances(map_: Map) -> Tensor:
    """Mean distance (L,) of every landmark from the keyframes that see it, map unit."""
    a = map_.arrays
    landmark = a.landmark.long()
    distance = (a.xyz_map[landmark] - a.keyframe_pose[keyframe_of(map_), :3, 3]).norm(dim=1)
    total = torch.zeros(map_.landmark_count, dtype=torch.float64).index_add_(0, landmark, distance)
    return total / map_.sightings.clamp_min(1)


def _is_best(group: Tensor, value: Tensor) -> Tensor:
    """Mask of the elements with the highest value of their group; equal ones count as one, the first."""
    order = np.lexsort((-value.numpy(), group.numpy()))
    first = np.concatenate([[True], np.diff(group.numpy()[order]) > 0]) if len(order) else np.zeros(0, bool)
    best = np.zeros(len(order), bool)
    best[order[first]] = True
    return torch.from_numpy(best)
