"""Pairs of rendered rooms: exact depth says where each pixel is in the other view, and whether it is hidden there."""

from __future__ import annotations

import functools

import numpy as np
import torch

from nre_ros.geometry import Camera, Pose
from nre_ros.simulation import World, base_from_camera, build_world, render
from nre_ros.simulation.sensor import Exposure, develop
from nre_ros.simulation.trajectory import mapping_walk, query_walk
from nre_ros.training.config import PairConfig
from nre_ros.training.pairs import Pair, inside
from nre_ros.training.photos import candidates

FIRST_SEED = 1000
"""Houses of the demo and of the tests have smaller seeds."""

_DURATION_S = 60.0
_HIDDEN_SHARE = 0.01
"""A point is hidden where the other view's depth is smaller than its own by this share."""


class RenderedPairs:
    """Pairs of ``worlds`` houses, each built when it is first drawn."""

    def __init__(self, worlds: int, config: PairConfig) -> None:
        self.corrupt: set[str] = set()
        self._worlds = worlds
        self._config = config

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Pair | None:
        seed = FIRST_SEED + int(rng.integers(self._worlds))
        focal = max(width, height) * rng.uniform(0.6, 1.1)
        camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        time_s = rng.uniform(0, _DURATION_S)
        # a tour has a minute: three seconds are a metre or two, or a turn of the head
        times = time_s, float(np.clip(time_s + rng.normal(0, 1.5), 0, _DURATION_S))
        poses = [_pose(rng, seed, t, walk) for t, walk in zip(times, rng.permutation(2), strict=True)]
        return rendered_pair(_world(seed), camera, poses[0], poses[1], rng, self._config)


def rendered_pair(
    world: World, camera: Camera, map_from_a: Pose, map_from_b: Pose, rng: np.random.Generator, config: PairConfig
) -> Pair | None:
    """Two views of a world with points that both see; None if there are too few."""
    views = [render(world, camera, pose) for pose in (map_from_a, map_from_b)]
    image_a, image_b = (develop(view.radiance, _exposure(rng), rng) for view in views)
    # depth is exact at the centres of pixels
    uv_a = np.rint(candidates(image_a, rng, 4 * config.points))
    uv_a = uv_a[inside(uv_a, camera.width, camera.height)]
    depth_a = views[0].depth_m[tuple(uv_a.T[::-1].astype(int))].astype(np.float64)
    uv_b, hidden = reproject(uv_a, depth_a, views[1].depth_m, camera, map_from_b.inverse() @ map_from_a)
    kept = np.flatnonzero(~hidden & inside(uv_b, camera.width, camera.height))
    if len(kept) < config.min_points:
        return None
    kept = kept[: config.points]
    return Pair(image_a, image_b, uv_a[kept].astype(np.float32), uv_b[kept].astype(np.float32))


def reproject(
    uv_a_px: np.ndarray, depth_a_m: np.ndarray, depth_b_m: np.ndarray, camera: Camera, b_from_a: Pose
) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels (N, 2) of view a with depth (N,) are in view b, and a mask (N,) of those that cannot be seen there.

    ``depth_b_m`` (H, W) is the depth image of b. Infinite depth counts as hidden.
    """
    bearing = camera.unproject(torch.from_numpy(uv_a_px))
    known = np.isfinite(depth_a_m)
    reach = torch.from_numpy(np.where(known, depth_a_m, 1.0))
    xyz_b = b_from_a.transform(bearing / bearing[:, 2:] * reach[:, None])
    projected, ahead = camera.project(xyz_b)
    uv_b = projected.numpy()
    column, row = np.rint(uv_b).clip(0, [camera.width - 1, camera.height - 1]).astype(int).T
    depth = xyz_b[:, 2].numpy()
    # the depth of the nearest pixel, not of the very place: on steep surfaces neighbours tell how much that may differ
    around = [depth_b_m[np.clip(row + dr, 0, camera.height - 1), np.clip(column + dc, 0, camera.width - 1)]
              for dr, dc in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))]  # fmt: skip
    low, high = np.min(around, axis=0), np.max(around, axis=0)
    same = (depth < high * (1 + _HIDDEN_SHARE)) & (depth > low * (1 - _HIDDEN_SHARE)) & (high < 1.05 * low)
    return uv_b, ~(known & ahead.numpy() & same)


@functools.lru_cache(maxsize=16)
def _world(seed: int) -> World:
    return build_world(seed)


def _pose(rng: np.random.Generator, seed: int, time_s: float, walk: int) -> Pose:
    """On one of the house's two walks, looking about more than a robot would."""
    path = (mapping_walk if walk == 0 else query_walk)(_DURATION_S, seed)
    spread = np.array([np.deg2rad(10), np.deg2rad(14), np.deg2rad(6), 0.08, 0.12, 0.08])
    shake = Pose.exp(torch.from_numpy(rng.normal(0, 1, 6) * spread))
    return path.map_from_base(time_s) @ base_from_camera() @ shake


def _exposure(rng: np.random.Generator) -> Exposure:
    return Exposure(0.0, float(rng.normal(0, 0.4)), float(np.exp(rng.normal(0, 0.1))), float(rng.uniform(0.5, 1.5)))
