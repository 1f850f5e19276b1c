"""The map: landmarks with what the network saw of them, keyframes, and which keyframe saw which landmark where."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.mapped_file import MappedFile
from nre_ros.mapping.retrieval import Vocabulary


@dataclass(frozen=True)
class MapArrays:
    """All arrays of a map with L landmarks, K keyframes and O observations, sorted by keyframe.

    ``xyz_map`` (L, 3) float64, map unit. ``coarse`` (L, Cc) and ``fine`` (L, Cf) int8 with ``coarse_scale`` and
    ``fine_scale`` (L,) float32: the mean of a landmark's descriptors in all keyframes that see it, see
    :mod:`nre_ros.mapping.descriptors`.

    ``keyframe_pose`` (K, 4, 4) float64 map_from_cam; ``keyframe_stamp_ns`` (K,) int64; ``keyframe_camera`` (K,) int32
    into :attr:`Map.cameras`; ``keyframe_start`` (K + 1,) int64: the observations of keyframe k are
    ``keyframe_start[k]`` to ``keyframe_start[k + 1]``. ``keyframe_global`` (K, V * R) float16, descriptors for
    retrieval, in terms of ``context_axes`` (C, R) and ``vocabulary`` (V, R) float32: see
    :class:`nre_ros.mapping.retrieval.Vocabulary`. ``landmark`` (O,) int32; ``uv_px`` (O, 2) float32 in the keyframe.
    """

    xyz_map: Tensor
    coarse: Tensor
    coarse_scale: Tensor
    fine: Tensor
    fine_scale: Tensor
    keyframe_pose: Tensor
    keyframe_stamp_ns: Tensor
    keyframe_camera: Tensor
    keyframe_start: Tensor
    keyframe_global: Tensor
    context_axes: Tensor
    vocabulary: Tensor
    landmark: Tensor
    uv_px: Tensor


_DTYPES = {
    "xyz_map": torch.float64,
    "coarse": torch.int8,
    "coarse_scale": torch.float32,
    "fine": torch.int8,
    "fine_scale": torch.float32,
    "keyframe_pose": torch.float64,
    "keyframe_stamp_ns": torch.int64,
    "keyframe_camera": torch.int32,
    "keyframe_start": torch.int64,
    "keyframe_global": torch.float16,
    "context_axes": torch.float32,
    "vocabulary": torch.float32,
    "landmark": torch.int32,
    "uv_px": torch.float32,
}


@dataclass(frozen=True)
class Map:
    """A place, as one network sees it. Raises MapError when the sizes of arrays contradict each other.

    ``file`` is where the arrays are mapped from, None for a map in memory.
    """

    frame_id: str
    unit: str
    network_name: str
    network_hash: str
    cameras: tuple[Camera, ...]
    arrays: MapArrays
    file: MappedFile | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_layout(self.arrays, len(self.cameras))

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
    def vocabulary(self) -> Vocabulary:
        a = self.arrays
        return Vocabulary(a.context_axes, a.vocabulary)

    @property
    def keyframe_stamps_ns(self) -> np.ndarray:
        return self.arrays.keyframe_stamp_ns.numpy()

    @functools.cached_property
    def median_depth(self) -> float:
        """Median distance along the optical axis from a keyframe to what it sees, map unit; a loaded map has that of
        its file."""
        a = self.arrays
        keyframe = torch.repeat_interleave(torch.arange(self.keyframe_count), a.keyframe_start.diff())
        cam_from_map = self.map_from_keyframe.inverse()
        forward = cam_from_map.rotation[keyframe, 2]
        depth = (forward * a.xyz_map[a.landmark.long()]).sum(-1) + cam_from_map.translation[keyframe, 2]
        return float(depth.median())

    @functools.cached_property
    def array_digests(self) -> Mapping[str, str]:
        """SHA-256 of every array, by name; a loaded map has those of its file, as they were written."""
        return {item.name: array_digest(getattr(self.arrays, item.name)) for item in fields(MapArrays)}

    @functools.cached_property
    def digest(self) -> str:
        """Hex string that names the content: same arrays and metadata, same digest."""
        names = (self.frame_id, self.unit, self.network_name, self.network_hash, self.cameras)
        content = repr((*names, self.median_depth, sorted(self.array_digests.items())))
        return hashlib.sha256(content.encode()).hexdigest()

    def check_file(self) -> None:
        """Before reading large arrays: raise MapError if the map's file was overwritten since it was loaded."""
        if self.file is not None:
            self.file.check()

    @functools.cached_property
    def sightings(self) -> Tensor:
        """How many keyframes see each landmark (L,) int64."""
        return torch.bincount(self.arrays.landmark, minlength=self.landmark_count)

    def observations_of(self, keyframe: int) -> slice:
        start = self.arrays.keyframe_start
        return slice(int(start[keyframe]), int(start[keyframe + 1]))


def array_digest(array: Tensor) -> str:
    """SHA-256 over shape and content."""
    digest = hashlib.sha256(f"{tuple(array.shape)}".encode())
    digest.update(array.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_layout(a: MapArrays, cameras: int) -> None:
    """Raise MapError if a dtype or a size is wrong; of the contents, only where keyframes start is looked at."""
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
        and a.coarse.ndim == a.fine.ndim == 2
        and len(a.coarse) == len(a.fine) == landmarks
        and a.coarse_scale.shape == a.fine_scale.shape == (landmarks,)
        and a.keyframe_pose.shape == (keyframes, 4, 4)
        and a.keyframe_stamp_ns.shape == a.keyframe_camera.shape == (keyframes,)
        and a.keyframe_global.shape == (keyframes, a.vocabulary.numel())
        and a.context_axes.ndim == a.vocabulary.ndim == 2
        and a.context_axes.shape[1] == a.vocabulary.shape[1]
        and a.landmark.shape == (observations,)
        and a.uv_px.shape == (observations, 2)
        and start.shape == (keyframes + 1,)
        and int(start[0]) == 0
        and int(start[-1]) == observations
        and bool((start.diff() >= 0).all())
        and cameras > 0
    )
    if not consistent:
        raise MapError("the map's arrays contradict each other in size; build the map again")


def check_content(a: MapArrays, cameras: int) -> None:
    """Raise MapError if a reference leads nowhere or a number is not finite; reads every array."""
    for name, count, of in (("landmark", len(a.xyz_map), "landmarks"), ("keyframe_camera", cameras, "cameras")):
        array = getattr(a, name)
        if int(array.min()) < 0 or int(array.max()) >= count:
            raise MapError(f"map array {name} refers to {of} beyond the map's {count}; build the map again")
    for name, dtype in _DTYPES.items():
        if dtype.is_floating_point and not bool(torch.isfinite(getattr(a, name)).all()):
            raise MapError(f"map array {name} holds NaN or infinity; build the map again")
