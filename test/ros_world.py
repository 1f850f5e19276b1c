"""A small textured corner of a room for node tests: frames with exact depth and poses, and a real map of it."""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from nre_ros.config import BuilderConfig
from nre_ros.features import load_network
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping import Map, MapBuilder, save_map
from nre_ros.mapping.map import MapArrays
from nre_ros.recordings.frame import Frame

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
QUICK = {"nre.msac_iterations": 100, "nre.hypotheses": 1, "nre.fine_rounds": 1, "nre.max_points": 300}
"""Parameters that find the corner as well as the defaults do, in less time."""
TEXELS = 1200
SIDE_M = 4.0
WALLS = (  # origin, and the directions of the texture's columns and rows, each of SIDE_M metres
    ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    ((0.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
)


@functools.cache
def _texture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((TEXELS, TEXELS, 3), 128, np.uint8)
    for _ in range(900):
        x, y = (int(v) for v in rng.integers(0, TEXELS, 2))
        size, colour = int(rng.integers(6, 60)), [int(v) for v in rng.integers(20, 236, 3)]
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + size, y + int(rng.integers(6, 60))), colour, -1)
        else:
            cv2.putText(image, chr(int(rng.integers(48, 91))), (x, y), 3, size / 20, colour, 2 + size // 12)
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def _rays(camera: Camera) -> np.ndarray:
    """(H, W, 3), one unit along the optical axis."""
    v, u = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    bearings = camera.unproject(torch.from_numpy(np.stack([u, v], -1).reshape(-1, 2)))
    return (bearings / bearings[:, 2:]).numpy().reshape(camera.height, camera.width, 3)


def frame(index: float, stamp_ns: int, *, noise_seed: int | None = None) -> Frame:
    """A view of the corner; neighbouring indices look from places some centimetres apart."""
    return frame_from(pose(index), stamp_ns, noise_seed=noise_seed)


def frame_from(map_from_cam: Pose, stamp_ns: int, *, noise_seed: int | None = None, camera: Camera = CAMERA) -> Frame:
    """A view of the corner from anywhere before it."""
    rotation, centre = map_from_cam.rotation.numpy(), map_from_cam.translation.numpy()
    rays = _rays(camera) @ rotation.T
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    depth = np.full(image.shape[:2], np.inf)
    for wall, (origin, right, down) in enumerate(WALLS):
        normal = np.cross(right, down)
        distance = ((np.array(origin) - centre) @ normal) / (rays @ normal)
        hit = centre + rays * distance[..., None] - origin
        columns, rows = ((hit @ axis) * (TEXELS / SIDE_M) + TEXELS / 2 for axis in (np.array(right), np.array(down)))
        pixels = cv2.remap(
            _texture(wall), columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        front = (distance > 0) & (distance < depth)
        image[front], depth[front] = pixels[front], distance[front]
    if noise_seed is not None:
        noise = np.random.default_rng(noise_seed).normal(0, 3, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return Frame(stamp_ns, image, camera, map_from_cam, depth.astype(np.float32))


def pose(index: float) -> Pose:
    """map_from_cam: about 2.5 m from the corner, looking at it."""
    angle = 0.06 * index
    centre = np.array([1.7 + 0.12 * np.sin(index), -1.7 + 0.1 * np.cos(1.3 * index), 0.1 * np.sin(0.7 * index)])
    target = np.array([0.3 * np.sin(angle), -0.3 * np.cos(angle), 0.0])
    return looking(centre, target)


def around(degrees: float, distance_m: float = 2.6) -> Pose:
    """map_from_cam: as far to the side of the corner's middle, looking into it."""
    angle = np.radians(-45 + degrees)
    return looking(np.array([distance_m * np.cos(angle), distance_m * np.sin(angle), 0.05]), np.zeros(3))


def looking(centre: np.ndarray, target: np.ndarray) -> Pose:
    """map_from_cam of an upright camera."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], -1)
    return Pose(torch.from_numpy(rotation), torch.from_numpy(centre))


TWIN_AWAY_M = 20.0


def twin_map(folder: Path, map_: Map, *, faded: float = 0.0) -> Path:
    """A map of two places that look alike: the corner, and once more :data:`TWIN_AWAY_M` along x, there with noise of
    the deviation ``faded`` (steps of the stored bytes) in the landmarks' descriptors."""
    a = map_.arrays
    away = torch.tensor([TWIN_AWAY_M, 0.0, 0.0], dtype=torch.float64)
    pose = a.keyframe_pose.clone()
    pose[:, :3, 3] += away
    double = {item.name: torch.cat([getattr(a, item.name)] * 2) for item in fields(a)}
    double |= {"context_axes": a.context_axes, "vocabulary": a.vocabulary}
    rng = torch.Generator().manual_seed(0)
    for name in ("coarse", "fine"):
        exact = getattr(a, name).float()
        noisy = exact + faded * torch.randn(exact.shape, generator=rng)
        double[name] = torch.cat([getattr(a, name), noisy.round().clamp(-127, 127).to(torch.int8)])
    double["xyz_map"] = torch.cat([a.xyz_map, a.xyz_map + away])
    double["keyframe_pose"] = torch.cat([a.keyframe_pose, pose])
    double["landmark"] = torch.cat([a.landmark, a.landmark + len(a.xyz_map)])
    double["keyframe_start"] = torch.cat([a.keyframe_start, a.keyframe_start[1:] + len(a.landmark)])
    save_map(replace(map_, arrays=MapArrays(**double), file=None), folder)
    return folder


def build_map(folder: Path) -> Path:
    """A real map of the corner, built from a few views by the real builder."""
    builder = MapBuilder(load_network(), BuilderConfig())
    for index in range(6):
        builder.add(frame(index, index * 10**9))
    save_map(builder.build(), folder)
    return folder
