"""Landmarks by SIFT alone at the keyframes' known poses, as COLMAP's point triangulator makes them.

Keyframes are matched with their neighbours; matches that agree with the poses join to tracks; tracks are triangulated
robustly, and keypoints that do not fit their landmark are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.geometry import Camera, Pose
from nre_ros.geometry.pose import hat
from nre_ros.mapping.keypoints import Keypoints, detect, match
from nre_ros.mapping.triangulation import triangulate, widest_angle_deg
from nre_ros.recordings import Frame

NEIGHBOURS = 12
"""Keyframes that each is matched with: those that stand nearest and look the same way."""
LOOKING_DEG = 45.0


@dataclass(frozen=True)
class SiftKeyframe:
    """Keypoints of a keyframe that show a landmark, and the landmarks' places (N, 3)."""

    keypoints: Keypoints
    xyz_map: np.ndarray


@dataclass(frozen=True)
class _View:
    keypoints: Keypoints
    camera: Camera
    map_from_cam: Pose
    bearings: Tensor

    @property
    def focal_px(self) -> float:
        return (self.camera.fx + self.camera.fy) / 2


def triangulated(keyframes: Iterable[Frame]) -> dict[int, SiftKeyframe]:
    """By the stamps (ns) of the posed keyframes; thresholds are those of our builder."""
    config, frames = BuilderConfig(), list(keyframes)
    views = [_view(frame, config.points_per_keyframe) for frame in frames]
    first = np.concatenate([[0], np.cumsum([len(view.keypoints) for view in views])])
    pairs = _pairs(Pose.from_matrix(torch.stack([view.map_from_cam.matrix() for view in views])))
    edges = [np.zeros((0, 2), int)]
    edges += [_agreeing(views[i], views[j], config.max_epipolar_px) + first[[i, j]] for i, j in pairs]
    i, j = np.concatenate(edges).T
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(first[-1], first[-1]))
    count, track = connected_components(graph, directed=False)
    shown, xyz_map = _fitting(views, torch.from_numpy(track.astype(np.int64)), count, config)
    found = {}
    for k, (frame, view) in enumerate(zip(frames, views, strict=True)):
        index = np.flatnonzero(shown[first[k] : first[k + 1]])
        keypoints = Keypoints(view.keypoints.uv_px[index], view.keypoints.descriptors[index])
        found[frame.stamp_ns] = SiftKeyframe(keypoints, xyz_map[track[first[k] + index]])
    return found


def _view(frame: Frame, most: int) -> _View:
    assert frame.map_from_cam is not None
    keypoints = detect(frame.image_rgb, most)
    bearings = frame.camera.unproject(torch.from_numpy(keypoints.uv_px))
    return _View(keypoints, frame.camera, frame.map_from_cam, bearings)


def _pairs(map_from_cam: Pose) -> list[tuple[int, int]]:
    """Keyframes (K,) that stand nearest to each other among those that look the same way."""
    apart = torch.cdist(map_from_cam.translation, map_from_cam.translation)
    axes = map_from_cam.rotation[:, :, 2]
    apart[axes @ axes.T < np.cos(np.radians(LOOKING_DEG))] = torch.inf
    apart.fill_diagonal_(torch.inf)
    nearest = apart.topk(min(NEIGHBOURS, len(axes)), largest=False)
    pairs = {
        (min(i, j), max(i, j))
        for i, (ranked, gaps) in enumerate(zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True))
        for j, gap in zip(ranked, gaps, strict=True)
        if np.isfinite(gap)
    }
    return sorted(pairs)


def _agreeing(a: _View, b: _View, max_epipolar_px: float) -> np.ndarray:
    """Matches (M, 2) that lie on each other's epipolar lines."""
    pairs, _ = match(a.keypoints, b.keypoints)
    b_from_a = b.map_from_cam.inverse() @ a.map_from_cam
    essential = hat(b_from_a.translation) @ b_from_a.rotation
    rays_a, rays_b = a.bearings[pairs[:, 0]], b.bearings[pairs[:, 1]]
    planes_b, planes_a = rays_a @ essential.T, rays_b @ essential
    product = (planes_b * rays_b).sum(-1).abs()
    in_b = product / planes_b.norm(dim=-1).clamp_min(1e-12) * b.focal_px
    in_a = product / planes_a.norm(dim=-1).clamp_min(1e-12) * a.focal_px
    return pairs[(in_a.maximum(in_b) < max_epipolar_px).numpy()]


def _fitting(views: Sequence[_View], track: Tensor, count: int, config: BuilderConfig) -> tuple[np.ndarray, np.ndarray]:
    """Mask (M,) of all keypoints that show a landmark, and the landmarks' places (T, 3) by track."""
    view_of = torch.repeat_interleave(torch.arange(len(views)), torch.tensor([len(v.keypoints) for v in views]))
    rotation = torch.stack([v.map_from_cam.rotation for v in views])[view_of]
    origin = torch.stack([v.map_from_cam.translation for v in views])[view_of]
    ray = (rotation @ torch.cat([v.bearings for v in views])[..., None])[..., 0]
    focal = torch.tensor([v.focal_px for v in views], dtype=torch.float64)[view_of]
    several = torch.bincount(track, minlength=count)[track] > 1
    some = torch.nonzero(several)[:, 0]
    xyz_map = triangulate(track[some], origin[some], ray[some], count, focal[some], config.max_reprojection_px)

    error_px = torch.full((len(track),), torch.inf, dtype=torch.float64)
    for k, view in enumerate(views):
        mine = torch.nonzero((view_of == k) & several)[:, 0]
        uv_px, visible = view.camera.project(view.map_from_cam.inverse().transform(xyz_map[track[mine]]))
        found_px = torch.from_numpy(view.keypoints.uv_px)[mine - int((view_of < k).sum())]
        error_px[mine] = torch.where(visible, (uv_px - found_px).norm(dim=-1), torch.inf)
    good = torch.nan_to_num(error_px, nan=torch.inf) < config.max_reprojection_px
    good &= _best_of_each(track, view_of, error_px)
    angle = widest_angle_deg(track[good], origin[good], xyz_map)
    length = torch.bincount(track[good], minlength=count)
    landmark = (length >= config.min_track_length) & (angle > config.min_triangulation_deg)
    return (good & landmark[track]).numpy(), xyz_map.numpy()


def _best_of_each(track: Tensor, view_of: Tensor, error_px: Tensor) -> Tensor:
    """Mask (M,) of the keypoint with the smallest error of each track in each view."""
    order = np.lexsort((error_px.nan_to_num(nan=torch.inf).numpy(), view_of.numpy(), track.numpy()))
    key = np.stack([track.numpy(), view_of.numpy()], 1)[order]
    best = np.zeros(len(order), bool)
    best[order[np.concatenate([[True], (key[1:] != key[:-1]).any(1)])]] = True
    return torch.from_numpy(best)
