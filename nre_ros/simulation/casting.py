"""Ray casting: which rectangle each ray of a camera meets first, and at what depth.

A plane seen by a camera is linear in the inverse depth: for the ray (x, y, 1) of a pixel, 1/z and the plane's own
coordinates divided by z are affine in x and y. So a rectangle is nine numbers, and asking whether a ray meets it takes
three affine functions and no division.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from nre_ros.geometry import Camera, Pose
from nre_ros.simulation.world import Quads

_SLACK = np.float32(0.5 + 1e-5)
"""Rectangles reach this share beyond their edges, so that rounding leaves no cracks between neighbours."""

_NEAR_M = 1e-3


@functools.lru_cache(maxsize=8)
def rays(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """x and y (H, W), float32, of the ray (x, y, 1) through every pixel's centre."""
    v, u = torch.meshgrid(
        torch.arange(camera.height, dtype=torch.float64), torch.arange(camera.width, dtype=torch.float64), indexing="ij"
    )
    bearing = camera.unproject(torch.stack([u, v], -1)).numpy()
    xy = (bearing[..., :2] / bearing[..., 2:]).astype(np.float32)
    return np.ascontiguousarray(xy[..., 0]), np.ascontiguousarray(xy[..., 1])


def planes(quads: Quads, map_from_cam: Pose) -> np.ndarray:
    """(3, 3, N): rows that give, times (x, y, 1), the inverse depth q, and q times the two plane coordinates.

    Those run from -0.5 to 0.5 over the rectangle. A rectangle seen from behind or edge-on gets zeros: never met.
    """
    o, u, v = _in_camera(quads, map_from_cam)
    normal = np.cross(u, v)
    offset = (normal * o).sum(1)
    faces = offset > 1e-9 * np.linalg.norm(normal, axis=1)
    q = normal / np.where(faces, offset, 1.0)[:, None]
    rows = [q]
    for edge in (u, v):
        scaled = edge / (edge**2).sum(1, keepdims=True)
        rows.append(scaled - ((o * scaled).sum(1) + 0.5)[:, None] * q)
    return np.where(faces, np.stack(rows).transpose(0, 2, 1), 0.0)


def cast(quads: Quads, rows: np.ndarray, map_from_cam: Pose, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth (H, W), float32, and index (H, W), int32, of the nearest rectangle on each pixel's ray.

    ``rows`` are the :func:`planes`. Where a ray meets nothing the inverse depth is 0.
    """
    x, y = rays(camera)
    nearest, low, high = _extent(quads, rows, map_from_cam)
    first_col, last_col = _span(x.min(0), x.max(0), low[:, 0], high[:, 0])
    first_row, last_row = _span(y.min(1), y.max(1), low[:, 1], high[:, 1])
    order = np.argsort(-nearest)
    order = order[((nearest > 0) & (last_col > first_col) & (last_row > first_row))[order]]
    best, quad = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.int32)
    single = rows.astype(np.float32)
    for index in order:
        patch = slice(first_row[index], last_row[index]), slice(first_col[index], last_col[index])
        ahead = best[patch]
        if ahead.min() > nearest[index]:
            continue
        q, met = _meets(single[..., index], x[patch], y[patch], ahead)
        np.copyto(ahead, q, where=met)
        np.copyto(quad[patch], np.int32(index), where=met)
    return best, quad


def nearest_of(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of some planes (3, 3, C, M) each ray (x, y, 1) meets first: int64 (M,), 0 where it meets none."""
    best, chosen = np.zeros(len(x), np.float32), np.zeros(len(x), np.int64)
    for number in range(rows.shape[2]):
        q, met = _meets(rows[:, :, number], x, y, best)
        np.copyto(best, q, where=met)
        np.copyto(chosen, number, where=met)
    return chosen


def _meets(rows: np.ndarray, x: np.ndarray, y: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth of planes (3, 3, ...) on rays, and where it lies inside the rectangle and before ``ahead``."""
    q = rows[0, 0] * x + rows[0, 1] * y + rows[0, 2]
    half = q * _SLACK
    met = q > ahead
    for a, b, c in rows[1:]:
        met &= np.abs(a * x + b * y + c) <= half
    return q, met


def _in_camera(quads: Quads, map_from_cam: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rotation, centre = map_from_cam.rotation.numpy(), map_from_cam.translation.numpy()
    return (quads.origin - centre) @ rotation, quads.edge_u @ rotation, quads.edge_v @ rotation


def _extent(quads: Quads, rows: np.ndarray, map_from_cam: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest inverse depth (N,) of each rectangle's part before the camera, and bounds (N, 2) of its x/z and y/z.

    The inverse depth is 0 for what faces away or lies behind.
    """
    o, u, v = _in_camera(quads, map_from_cam)
    corners = np.stack([o, o + u, o + u + v, o + v], 1)
    nearest, low, high = np.zeros(len(o)), np.zeros((len(o), 2)), np.zeros((len(o), 2))
    in_front = corners[..., 2] >= _NEAR_M
    faces = (rows[0] != 0).any(0)
    for index in np.flatnonzero(faces & in_front.any(1) & ~in_front.all(1)):
        outline = _clip(corners[index])
        seen = outline[:, :2] / outline[:, 2:]
        nearest[index], low[index], high[index] = (1 / outline[:, 2]).max(), seen.min(0), seen.max(0)
    whole = faces & in_front.all(1)
    seen = corners[whole, :, :2] / corners[whole, :, 2:]
    nearest[whole], low[whole], high[whole] = (1 / corners[whole, :, 2]).max(1), seen.min(1), seen.max(1)
    return nearest, low, high


def _clip(corners: np.ndarray) -> np.ndarray:
    """The part (M, 3) of a polygon (4, 3) that lies before the camera."""
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
        if a[2] >= _NEAR_M:
            kept.append(a)
        if (a[2] >= _NEAR_M) != (b[2] >= _NEAR_M):
            kept.append(a + (b - a) * (_NEAR_M - a[2]) / (b[2] - a[2]))
    return np.array(kept)


def _span(
    line_low: np.ndarray, line_high: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last of the image's lines (L,) that can hold values between low and high (N,).

    Each line (a row or a column) covers values from ``line_low`` to ``line_high``; they grow from line to line,
    up to what distortion does, which the running extremes make good.
    """
    first = np.searchsorted(np.maximum.accumulate(line_high), low, side="left")
    last = np.searchsorted(np.minimum.accumulate(line_low[::-1])[::-1], high, side="right")
    return first, last
