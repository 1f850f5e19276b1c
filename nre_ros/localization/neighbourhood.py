"""What the map holds around an expected pose: keyframes nearby, and landmarks that should be in view."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nre_ros.geometry import Camera, Pose
from nre_ros.localization.candidates import landmarks_of, sound_points
from nre_ros.localization.prior import BOUND_SIGMAS, Prior
from nre_ros.mapping import Map
from nre_ros.mapping.keypoints import rank_in_part

NEAREST = 12
"""Keyframes around the expected pose whose landmarks are looked through; neighbours see much the same."""
WELL_SEEN = 3
"""Keyframes that fix a landmark well; from there on, more make little difference to a pose."""
PATIENCE = 3
"""Per sighting that is missing."""
BORDER_SHARE = 0.02
"""Landmarks expected beyond the image's edge by less than this share of its width may yet be in view."""


def keyframes_near(map_: Map, map_from_cam: Pose, count: int = NEAREST) -> list[int]:
    """The keyframes that see most like a camera there: near it in terms of the map's depth, and looking its way."""
    poses = map_.arrays.keyframe_pose
    apart = (poses[:, :3, 3] - map_from_cam.translation).norm(dim=1) / map_.median_depth
    turned = (poses[:, :3, 2] - map_from_cam.rotation[:, 2]).norm(dim=1)
    nearest: list[int] = (apart + turned).topk(min(count, len(poses)), largest=False).indices.tolist()
    return nearest


def landmarks_in_view(map_: Map, keyframes: Sequence[int], map_from_cam: Pose, camera: Camera, most: int) -> Tensor:
    """Indices of up to ``most`` landmarks of the keyframes that a camera there has in view, spread over the image: of
    each part of it those that are seen most, and one seen less only after :data:`PATIENCE` times as many others.

    Not spread, median rotations on whole maps are up to a fifth larger (fox). Without patience, or spread only among
    those seen alike, more poses on sparse maps are wrong or inexact; where depth is measured, patience gains nothing.
    """
    seen = landmarks_of(map_, keyframes)
    uv_px, visible = camera.project(map_from_cam.inverse().transform(sound_points(map_, seen)))
    border = BORDER_SHARE * camera.width
    size = uv_px.new_tensor([camera.width, camera.height])
    inside = visible & ((uv_px > -border) & (uv_px < size + border)).all(-1)
    sightings = map_.sightings[seen[inside]].clamp(max=WELL_SEEN)
    best_first = sightings.argsort(descending=True, stable=True)
    seen, uv_px, sightings = seen[inside][best_first], uv_px[inside][best_first], sightings[best_first]
    rank = torch.from_numpy(rank_in_part(uv_px.numpy(), camera.width, camera.height))
    turn = (rank + 1) * PATIENCE ** (WELL_SEEN - sightings)
    return seen[turn.argsort(stable=True)[:most]]


def keyframes_within(map_: Map, prior: Prior) -> Tensor:
    """Mask (K,) of the keyframes that may see what a camera within the prior's bounds sees."""
    radius = BOUND_SIGMAS * prior.translation + map_.median_depth
    return (map_.arrays.keyframe_pose[:, :3, 3] - prior.map_from_cam.translation).norm(dim=1) <= radius


def projected_sigma_px(prior: Prior, xyz_map: Tensor, camera: Camera) -> float:
    """Root mean square, over landmarks (N, 3), of how uncertain their projections are along x and y, pixels."""
    xyz_cam = prior.map_from_cam.inverse().transform(xyz_map)
    _, by_point, visible = camera.project_with_jacobian(xyz_cam)
    by_twist = torch.cat([torch.linalg.cross(xyz_cam[:, None].expand_as(by_point), by_point), by_point], -1)
    variance = (by_twist @ prior.covariance * by_twist).sum(-1)[visible]
    return math.sqrt(float(variance.mean())) if len(variance) else math.inf
