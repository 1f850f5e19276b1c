"""Landmarks of posed keyframes: tracks, their points, and which sightings agree with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.geometry import Camera
from nre_ros.mapping.spots import Spots
from nre_ros.mapping.tracks import Tracks, View
from nre_ros.mapping.triangulation import triangulate, widest_angle_deg


@dataclass(frozen=True)
class Sighting:
    """Which places of one keyframe show which landmarks: two arrays (S,) int64; ``place`` counts the keyframe's
    keypoints, then its ``spots``."""

    place: Tensor
    landmark: Tensor
    spots: Spots


@dataclass
class _Rays:
    """Every place that belongs to a track, of all keyframes in one array (M)."""

    track: Tensor
    view: Tensor
    place: Tensor
    origin: Tensor
    ray: Tensor
    uv_px: Tensor
    depth_point: Tensor


def place_landmarks(
    tracks: Tracks,
    views: Sequence[View],
    depths: Sequence[Tensor],
    cameras: Sequence[Camera],
    config: BuilderConfig,
    tell: Callable[[str, int, int], None],
) -> tuple[list[Sighting], Tensor, Tensor]:
    """Sightings per view, landmarks (L, 3) float64 in the map frame, and a mask (L,) of those of measured depth.

    A keypoint with depth is a landmark even if no other view shares it; without depth, landmarks are triangulated
    from ``config.min_track_length`` views or more with enough parallax. A sighting further than
    ``config.max_reprojection_px`` from its landmark's projection is dropped, as is the worse of two in one view.
    """
    rays = _gather(views, depths, cameras, tracks)
    count = int(rays.track.max()) + 1 if len(rays.track) else 0
    tell("landmarks", 0, 1)
    xyz, exact = _points(rays, views, count, config)
    error_px = _reprojection_px(rays, xyz, views, cameras)
    good = torch.nan_to_num(error_px, nan=torch.inf) < config.max_reprojection_px
    good = good & _best_in_view(rays, error_px)
    length = torch.bincount(rays.track[good], minlength=count)
    angle = widest_angle_deg(rays.track[good], rays.origin[good], xyz)
    fixed = (length >= config.min_track_length) & (angle > config.min_triangulation_deg)
    kept = torch.isfinite(xyz).all(-1) & ((exact & (length > 0)) | fixed)
    number = torch.cumsum(kept, 0) - 1
    sightings = []
    for i, spots in enumerate(tracks.spots):
        mine = good & (rays.view == i) & kept[rays.track]
        sightings.append(Sighting(rays.place[mine], number[rays.track[mine]], spots))
    tell("landmarks", 1, 1)
    return sightings, xyz[kept], exact[kept]


def _gather(views: Sequence[View], depths: Sequence[Tensor], cameras: Sequence[Camera], tracks: Tracks) -> _Rays:
    """Rays of all tracked places, and of keypoints with depth that no track holds, each a track of its own."""
    spots = [torch.from_numpy(mine.uv_px) for mine in tracks.spots]
    counts = torch.tensor([len(view.keypoints) + len(mine) for view, mine in zip(views, spots, strict=True)])
    of_view = torch.repeat_interleave(torch.arange(len(views)), counts)
    start = torch.cumsum(counts, 0) - counts
    depth = torch.cat([F.pad(d, (0, len(mine)), value=torch.nan) for d, mine in zip(depths, spots, strict=True)])
    tracked = torch.full((len(of_view),), -1)
    tracked[torch.from_numpy(tracks.place)] = torch.from_numpy(tracks.track)
    single = torch.nonzero((tracked < 0) & torch.isfinite(depth))[:, 0]
    tracked[single] = torch.arange(len(single)) + (int(tracks.track.max()) + 1 if len(tracks.track) else 0)
    used = torch.nonzero(tracked >= 0)[:, 0]

    uv_px, bearings = [], []
    for view, camera, mine in zip(views, cameras, spots, strict=True):
        uv_px += [torch.from_numpy(view.keypoints.uv_px), mine]
        bearings += [view.bearings, camera.unproject(mine)]
    bearing = torch.cat(bearings)[used]
    view_of = of_view[used]
    rotation = torch.stack([v.map_from_cam.rotation for v in views])[view_of]
    origin = torch.stack([v.map_from_cam.translation for v in views])[view_of]
    ray = (rotation @ bearing[..., None])[..., 0]
    along = depth[used] / bearing[:, 2]
    place_point = origin + along[:, None] * ray
    return _Rays(tracked[used], view_of, used - start[view_of], origin, ray, torch.cat(uv_px)[used], place_point)


def _points(rays: _Rays, views: Sequence[View], count: int, config: BuilderConfig) -> tuple[Tensor, Tensor]:
    """Points (T, 3) and a mask (T,) of those that measured depth fixes: there, the median of the sightings' points."""
    focal = torch.tensor([view.focal_px for view in views], dtype=torch.float64)[rays.view]
    xyz = triangulate(rays.track, rays.origin, rays.ray, count, focal, config.max_reprojection_px)
    known = torch.isfinite(rays.depth_point).all(-1)
    exact = torch.zeros(count, dtype=torch.bool)
    if bool(known.any()):
        exact[rays.track[known]] = True
        xyz[exact] = _medians(rays.track[known], rays.depth_point[known])
    return xyz, exact


def _medians(track: Tensor, points: Tensor) -> Tensor:
    """Median point of every track that occurs, ascending by track: per coordinate, the lower of two middles."""
    length = torch.unique(track, return_counts=True)[1]
    middle = torch.cumsum(length, 0) - length + (length - 1) // 2
    columns = []
    for axis in range(3):
        order = np.lexsort((points[:, axis].numpy(), track.numpy()))
        columns.append(points[torch.from_numpy(order), axis][middle])
    return torch.stack(columns, 1)


def _reprojection_px(rays: _Rays, xyz: Tensor, views: Sequence[View], cameras: Sequence[Camera]) -> Tensor:
    """Distance (M,) of each sighting from its landmark's projection; NaN behind the camera."""
    error = torch.full((len(rays.track),), torch.nan, dtype=torch.float64)
    for i, (view, camera) in enumerate(zip(views, cameras, strict=True)):
        mine = torch.nonzero(rays.view == i)[:, 0]
        uv_px, visible = camera.project(view.map_from_cam.inverse().transform(xyz[rays.track[mine]]))
        error[mine] = torch.where(visible, (uv_px - rays.uv_px[mine]).norm(dim=-1), torch.nan)
    return error


def _best_in_view(rays: _Rays, error_px: Tensor) -> Tensor:
    """Mask (M,) of the sighting with the smallest error of each track in each view."""
    order = np.lexsort((torch.nan_to_num(error_px, nan=torch.inf).numpy(), rays.view.numpy(), rays.track.numpy()))
    key = torch.stack([rays.track, rays.view], 1)[torch.from_numpy(order)]
    first = torch.ones(len(key), dtype=torch.bool)
    first[1:] = (key[1:] != key[:-1]).any(1)
    best = torch.zeros(len(key), dtype=torch.bool)
    best[torch.from_numpy(order)[first]] = True
    return best
