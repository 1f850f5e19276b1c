"""What the images of a second session say of a map: which of its landmarks they see again, and which they miss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from nre_ros.errors import CalibrationError, MapError
from nre_ros.features import DenseFeatures, FeatureNetwork, limit_size
from nre_ros.mapping.descriptors import restored
from nre_ros.mapping.map import Map
from nre_ros.mapping.retrieval import aggregate
from nre_ros.mapping.subset import VOCABULARY_ARRAYS, keyframe_of, subset
from nre_ros.nre import coarse_loss_maps
from nre_ros.recordings.frame import Frame

NEARER = 1.3
"""A landmark is looked at from near within this times the largest distance from which its own map saw it."""
VIEW_DEG = 40.0
"""And from a direction within this of its own map's mean one."""
BESIDE_PX = 30.0
"""A landmark of the session this near in the image tells how far one sees there."""
HIDDEN = 0.9
"""A landmark is hidden where the session sees a landmark nearer than this times its own depth."""
SEEN_SHARE_OF_CEILING = 0.3
"""A landmark is seen when its coarse gain at its place, or a cell beside it, is this share of ln|Omega|."""
CHUNK = 2000
"""Landmarks asked about at once: loss maps take memory."""


class Revisit:
    """Goes through the session's images: gives its keyframes descriptors of the map's vocabulary, and counts for every
    landmark of ``first`` how many images looked at it (``looks`` (L,)), and how many of these saw it (``seen`` (L,)).

    ``second`` is the session's map in the frame of ``first``.
    """

    def __init__(self, first: Map, second: Map, network: FeatureNetwork) -> None:
        self._first = first
        self._second = second
        self._network = network
        self._vocabulary = first.vocabulary.to(network.device)
        self._described: dict[int, Tensor] = {}
        self.looks = torch.zeros(first.landmark_count, dtype=torch.int64)
        self.seen = torch.zeros(first.landmark_count, dtype=torch.int64)
        self._reach, self._direction = _own_views(first)

    @torch.inference_mode()
    def add(self, keyframe: int, frame: Frame) -> None:
        """The image of a keyframe of the session. Raises CalibrationError when its camera is another one."""
        camera = self._second.cameras[int(self._second.arrays.keyframe_camera[keyframe])]
        image, given = limit_size(frame.image_rgb, frame.camera, max(camera.width, camera.height))
        if given != camera:
            raise CalibrationError(
                f"frame {frame.name or frame.stamp_ns} has another calibration than the map that was made of it; "
                "give the recording as it was"
            )
        features = self._network.extract(image)
        self._described[keyframe] = aggregate(features.context.values, self._vocabulary).cpu()
        landmark, uv_px = self._looked_at(keyframe)
        for some in torch.arange(len(landmark)).split(CHUNK):
            self.seen[landmark[some]] += self._is_seen(landmark[some], uv_px[some], features)
        self.looks[landmark] += 1

    def session(self) -> Map:
        """The session's map with its keyframes described anew, without those whose image was not given."""
        if not self._described:
            raise MapError("no image of the second map's keyframes was given; name the recording it was made of")
        described = torch.zeros(self._second.keyframe_count, dtype=torch.bool)
        described[list(self._described)] = True
        a = self._first.arrays
        vectors = torch.zeros((self._second.keyframe_count, a.keyframe_global.shape[1]), dtype=a.keyframe_global.dtype)
        vectors[list(self._described)] = torch.stack(list(self._described.values())).to(vectors.dtype)
        vocabulary = {name: getattr(a, name) for name in VOCABULARY_ARRAYS}
        arrays = replace(self._second.arrays, keyframe_global=vectors, **vocabulary)
        everything = torch.ones(self._second.landmark_count, dtype=torch.bool)
        return subset(replace(self._second, arrays=arrays, file=None), everything, described)

    def _looked_at(self, keyframe: int) -> tuple[Tensor, Tensor]:
        """Landmarks (M,) of the first map that are on the image, looked at from near, and not hidden; their pixels."""
        a, b = self._first.arrays, self._second.arrays
        map_from_cam = self._second.map_from_keyframe[keyframe]
        camera = self._second.cameras[int(b.keyframe_camera[keyframe])]
        xyz_cam = map_from_cam.inverse().transform(a.xyz_map)
        uv_px, visible = camera.project(xyz_cam)
        ray = a.xyz_map - map_from_cam.translation
        distance = ray.norm(dim=1)
        along = (ray * self._direction).sum(1) >= np.cos(np.deg2rad(VIEW_DEG)) * distance
        near = visible & camera.contains(uv_px, 8) & (distance <= NEARER * self._reach) & along
        landmark = torch.nonzero(near)[:, 0]
        rows = self._second.observations_of(keyframe)
        if not len(landmark) or rows.start == rows.stop:
            return landmark[:0], uv_px[:0]
        depth = map_from_cam.inverse().transform(b.xyz_map[b.landmark[rows].long()])[:, 2]
        apart, beside = cKDTree(b.uv_px[rows].numpy()).query(uv_px[landmark].numpy())
        open_ = torch.from_numpy(apart < BESIDE_PX) & (depth[beside] >= HIDDEN * xyz_cam[landmark, 2])
        return landmark[open_], uv_px[landmark[open_]]

    def _is_seen(self, landmark: Tensor, uv_px: Tensor, features: DenseFeatures) -> Tensor:
        a, level = self._first.arrays, features.coarse
        asked = restored(a.coarse[landmark], a.coarse_scale[landmark]).to(level.values.device)
        maps = coarse_loss_maps(asked, level.values, level.inverse_temperature, level.grid)
        cell = level.grid.cell_from_pixel(uv_px.to(asked)).round().long()
        patch, inside = maps.patches((cell - 1)[None], 3)
        on_image = inside[..., 0, None, :] & inside[..., 1, :, None]
        gain = (patch * on_image).amax((-2, -1))[0]
        return (gain >= SEEN_SHARE_OF_CEILING * maps.ceiling).long().cpu()


def _own_views(map_: Map) -> tuple[Tensor, Tensor]:
    """Largest distance (L,) from which a map saw each landmark, and the mean direction (L, 3) it was seen in."""
    a = map_.arrays
    landmark = a.landmark.long()
    ray = a.xyz_map[landmark] - a.keyframe_pose[keyframe_of(map_), :3, 3]
    distance = ray.norm(dim=1)
    reach = torch.zeros(map_.landmark_count, dtype=torch.float64).scatter_reduce_(0, landmark, distance, "amax")
    total = torch.zeros_like(a.xyz_map).index_add_(0, landmark, ray / distance.clamp_min(1e-300)[:, None])
    return reach, torch.nn.functional.normalize(total, dim=1)
