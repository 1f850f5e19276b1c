"""Parts of maps, and maps moved to another frame: whole maps again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry.alignment import Similarity
from nre_ros.mapping.map import Map

LANDMARK_ARRAYS = ("xyz_map", "coarse", "coarse_scale", "fine", "fine_scale")
KEYFRAME_ARRAYS = ("keyframe_pose", "keyframe_stamp_ns", "keyframe_camera", "keyframe_global")
OBSERVATION_ARRAYS = ("landmark", "uv_px")
VOCABULARY_ARRAYS = ("context_axes", "vocabulary")
"""What ``keyframe_global`` is written in."""


def keyframe_of(map_: Map) -> Tensor:
    """Keyframe (O,) int64 of every observation."""
    return torch.repeat_interleave(torch.arange(map_.keyframe_count), map_.arrays.keyframe_start.diff())


def subset(map_: Map, landmarks: Tensor, keyframes: Tensor) -> Map:
    """The map of some landmarks (L,) and keyframes (K,), two masks.

    Landmarks that none of these keyframes sees go too, as do keyframes that see none of these landmarks, and cameras
    that no keyframe uses. Raises MapError when nothing is left.
    """
    a = map_.arrays
    keyframe, landmark = keyframe_of(map_), a.landmark.long()
    seen = landmarks[landmark] & keyframes[keyframe]
    if not bool(seen.any()):
        raise MapError("no landmark would be left in the map; ask for more")
    kept_landmark = torch.zeros_like(landmarks).index_fill_(0, landmark[seen], True)
    kept_keyframe = torch.zeros_like(keyframes).index_fill_(0, keyframe[seen], True)
    number = torch.cumsum(kept_landmark, 0) - 1
    cameras, camera = torch.unique(a.keyframe_camera[kept_keyframe], return_inverse=True)
    counts = torch.bincount(keyframe[seen], minlength=map_.keyframe_count)[kept_keyframe]
    arrays = replace(
        a,
        **{name: getattr(a, name)[kept_landmark] for name in LANDMARK_ARRAYS},
        **{name: getattr(a, name)[kept_keyframe] for name in KEYFRAME_ARRAYS},
        **{name: getattr(a, name)[seen] for name in OBSERVATION_ARRAYS},
    )
    arrays = replace(
        arrays,
        landmark=number[landmark[seen]].int(),
        keyframe_camera=camera.int(),
        keyframe_start=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
    )
    return replace(map_, cameras=tuple(map_.cameras[int(i)] for i in cameras), arrays=arrays, file=None)


def moved(map_: Map, other_from_map: Similarity) -> Map:
    """The map with its landmarks and keyframes in another frame; what it is called and its unit stay."""
    a = map_.arrays
    pose = other_from_map.move(map_.map_from_keyframe).matrix()
    arrays = replace(a, xyz_map=other_from_map.transform(a.xyz_map), keyframe_pose=pose)
    return replace(map_, arrays=arrays, file=None)
