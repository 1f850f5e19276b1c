"""Some points of a keyframe as soon as it is there, for display: not the landmarks that the map will have."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nre_ros.mapping.builder import Keyframe
from nre_ros.mapping.keypoints import match
from nre_ros.mapping.triangulation import triangulate, widest_angle_deg

LEAST_ANGLE_DEG = 1.5
LARGEST_ERROR_PX = 3.0


def preview_points(keyframe: Keyframe, previous: Keyframe | None, most: int) -> np.ndarray:
    """Up to ``most`` points (N, 3) float32 in the map frame.

    Measured depth where there is any, else what matches with the previous keyframe give, with the poses as they are.
    """
    if bool(torch.isfinite(keyframe.depth).any()):
        xyz_map = _measured(keyframe)
    elif previous is not None:
        xyz_map = _triangulated(keyframe, previous)
    else:
        return np.zeros((0, 3), np.float32)
    step = max(1, -(-len(xyz_map) // most))
    return xyz_map[::step].float().numpy()


def _measured(keyframe: Keyframe) -> Tensor:
    known = torch.isfinite(keyframe.depth)
    bearings = keyframe.camera.unproject(torch.from_numpy(keyframe.keypoints.uv_px)[known])
    return keyframe.map_from_cam.transform(bearings / bearings[:, 2:] * keyframe.depth[known][:, None])


def _triangulated(keyframe: Keyframe, previous: Keyframe) -> Tensor:
    pairs, _ = match(previous.keypoints, keyframe.keypoints)
    count = len(pairs)
    rays, origins, focals = [], [], []
    for view, index in ((previous, pairs[:, 0]), (keyframe, pairs[:, 1])):
        bearings = view.camera.unproject(torch.from_numpy(view.keypoints.uv_px[index]))
        rays.append(bearings @ view.map_from_cam.rotation.T)
        origins.append(view.map_from_cam.translation.expand(count, 3))
        focals.append(torch.full((count,), (view.camera.fx + view.camera.fy) / 2, dtype=torch.float64))
    track = torch.arange(count).repeat(2)
    origin = torch.cat(origins)
    xyz_map = triangulate(track, origin, torch.cat(rays), count, torch.cat(focals), LARGEST_ERROR_PX)
    good = widest_angle_deg(track, origin, xyz_map) > LEAST_ANGLE_DEG
    for view, index in ((previous, pairs[:, 0]), (keyframe, pairs[:, 1])):
        uv_px, visible = view.camera.project(view.map_from_cam.inverse().transform(xyz_map))
        error_px = (uv_px - torch.from_numpy(view.keypoints.uv_px[index])).norm(dim=1)
        good &= visible & (error_px < LARGEST_ERROR_PX)
    return xyz_map[good]
