"""The map: landmarks, keyframes, and what the network saw of each landmark in each keyframe."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry import Camera, Pose


@dataclass(frozen=True)
class MapArrays:
    """All arrays of a map with L landmarks, K keyframes and O observations, sorted by keyframe.

    ``xyz_map`` (L, 3) float64, map unit. ``keyframe_pose`` (K, 4, 4) float64 map_from_cam; ``keyframe_stamp_ns``
    (K,) int64; ``keyframe_camera`` (K,) int32 into :attr:`Map.cameras`; ``keyframe_start`` (K + 1,) int64: the
    observations of keyframe k are ``keyframe_start[k]`` to ``keyframe_start[k + 1]``; ``keyframe_global`` (K, D)
    float16, descriptors for retrieval; ``vocabulary`` (V, C) float32 of these. ``landmark`` (O,) int32; ``uv_px``
    (O, 2) float32 in the keyframe; ``coarse`` (O, Cc) and ``fine`` (O, Cf) float16 descriptors.
    """

    xyz_map: Tensor
    keyframe_pose: Tensor
    keyframe_stamp_ns: Tensor
    keyframe_camera: Tensor
    keyframe_start: Tensor
    keyframe_global: Tensor
    vocabulary: Tensor
    landmark: Tensor
    uv_px: Tensor
    coarse: Tensor
    fine: Tensor


_DTYPES = {
    "xyz_map": torch.float64,
    "keyframe_pose": torch.float64,
    "keyframe_stamp_ns": torch.int64,
    "keyframe_camera": torch.int32,
    "keyframe_start": torch.int64,
    "keyframe_global": torch.float16,
    "vocabulary": torch.float32,
    "landmark": torch.int32,
    "uv_px": torch.float32,
    "coarse": torch.float16,
    "fine": torch.float16,
}


@dataclass(frozen=True)
class Map:
    """A place, as one network sees it. Raises MapError when arrays contradict each other."""

    frame_id: str
    unit: str
    network_name: str
    network_hash: str
    cameras: tuple[Camera, ...]
    arrays: MapArrays

    def __post_init__(self) -> None:
        check_arrays(self.arrays, len(self.cameras))

    @property
    def landmark_count(self) -> int:
        return len(self.arrays.xyz_map)

    @property
    def keyframe_count(self) -> int:
        return len(self.arrays.keyframe_pose)

    @property
    def observation_count(self) -> int:
        return len(self.arrays.landmark)

    @property
    def xyz_map(self) -> np.ndarray:
        """Landmarks (L, 3) float32, for clouds and pictures."""
        return self.arrays.xyz_map.to(torch.float32).numpy()

    @property
    def map_from_keyframe(self) -> Pose:
        return Pose.from_matrix(self.arrays.keyframe_pose)

    @property
    def keyframe_stamps_ns(self) -> np.ndarray:
        return self.arrays.keyframe_stamp_ns.numpy()

    @functools.cached_property
    def median_depth(self) -> float:
        """Median distance along the optical axis from a keyframe to what it sees, map unit."""
        a = self.arrays
        keyframe = torch.repeat_interleave(torch.arange(self.keyframe_count), a.keyframe_start.diff())
        cam_from_map = self.map_from_keyframe.inverse()
        forward = cam_from_map.rotation[keyframe, 2]
        depth = (forward * a.xyz_map[a.landmark.long()]).sum(-1) + cam_from_map.translation[keyframe, 2]
        return float(depth.median())

    @functools.cached_property
    def digest(self) -> str:
        """Hex string that names the content: same arrays and metadata, same digest."""
        return content_digest(self)

    def observations_of(self, keyframe: int) -> slice:
        start = self.arrays.keyframe_start
        return slice(int(start[keyframe]), int(start[keyframe + 1]))


def content_digest(map_: Map) -> str:
    """SHA-256 over metadata and every array."""
    digest = hashlib.sha256(
        repr((map_.frame_id, map_.unit, map_.network_name, map_.network_hash, map_.cameras)).encode()
    )
    for item in fields(MapArrays):
        array = getattr(map_.arrays, item.name).contiguous()
        digest.update(f"{item.name}{tuple(array.shape)}".encode())
        digest.update(memoryview(array.view(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def check_arrays(a: MapArrays, cameras: int) -> None:
    """Raise MapError if a dtype, a shape or a cross-reference is wrong, or a number is not finite."""
    for name, dtype in _DTYPES.items():
        array = getattr(a, name)
        if array.dtype is not dtype:
            raise MapError(f"map array {name} holds {array.dtype}, expected {dtype}; build the map again")
    landmarks, keyframes, observations = len(a.xyz_map), len(a.keyframe_pose), len(a.landmark)
    if landmarks == 0 or keyframes == 0 or observations == 0:
        raise MapError(f"the map is empty ({landmarks} landmarks, {keyframes} keyframes, {observations} observations)")
    start = a.keyframe_start
    consistent = (
        a.xyz_map.shape == (landmarks, 3)
        and a.keyframe_pose.shape == (keyframes, 4, 4)
        and a.keyframe_stamp_ns.shape == a.keyframe_camera.shape == (keyframes,)
        and len(a.keyframe_global) == keyframes
        and a.keyframe_global.shape[1:] == (a.vocabulary.numel(),)
        and a.uv_px.shape == (observations, 2)
        and len(a.coarse) == len(a.fine) == observations
        and start.shape == (keyframes + 1,)
        and int(start[0]) == 0
        and int(start[-1]) == observations
        and bool((start.diff() >= 0).all())
        and int(a.landmark.min()) >= 0
        and int(a.landmark.max()) < landmarks
        and int(a.keyframe_camera.min()) >= 0
        and int(a.keyframe_camera.max()) < cameras
    )
    if not consistent:
        raise MapError("the map's arrays contradict each other in size or reference; build the map again")
    for name in ("xyz_map", "keyframe_pose", "uv_px"):
        if not bool(torch.isfinite(getattr(a, name)).all()):
            raise MapError(f"map array {name} holds NaN or infinity; build the map again")
