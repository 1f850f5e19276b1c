"""Light baked into the surfaces: lamps and windows with soft shadows, and a sky-like ambient that corners darken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nre_ros.simulation.surfaces import Surface

_SPACING_M = 0.15
_AMBIENT = np.array([0.30, 0.30, 0.31], np.float32)
_AMBIENT_REACH_M = 0.6
_CELL_M = 1.0
"""Points are lit together by cubes of this size, so that only what stands near is asked whether it casts shadow."""

_PAIRS_AT_ONCE = 60_000
_SMALLEST_SHADOW_M2 = 0.02
_DIMMEST = 0.01


@dataclass(frozen=True)
class Lamp:
    """A rectangular light: centre and edges (3,) in metres; ``power`` linear red, green, blue at one metre.

    With a ``normal`` (3,) it shines to that side only, without one to all sides.
    """

    centre: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    power: tuple[float, ...]
    normal: np.ndarray | None

    @staticmethod
    def on(surface: Surface, power: tuple[float, ...]) -> Lamp:
        """The light of a shining rectangle, sampled 3 cm before its front."""
        middle = surface.origin + (surface.edge_u + surface.edge_v) / 2 + 0.03 * surface.normal
        return Lamp(middle, surface.edge_u, surface.edge_v, power, surface.normal)

    def samples(self) -> np.ndarray:
        """Points (5, 3) spread over its rectangle."""
        grid = np.array([(0.0, 0.0), (-0.3, -0.35), (0.35, -0.3), (-0.35, 0.3), (0.3, 0.35)])
        return self.centre + grid[:, :1] * self.edge_u + grid[:, 1:] * self.edge_v


class _Blockers:
    """The rectangles that cast shadows: their planes and axes as rows (N, 4) for points (x, y, z, 1), float32."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        origin, normal = np.array([s.origin for s in surfaces]), np.array([s.normal for s in surfaces])
        axes = [np.array([edge / (edge @ edge) for edge in edges]) for edges in _edges(surfaces)]
        rows = [np.concatenate([n, -(n * origin).sum(1, keepdims=True)], 1) for n in (normal, *axes)]
        # the axes run from -0.5 to 0.5, so that one comparison of the absolute value tells inside from outside
        self._rows = np.stack(rows).astype(np.float32)
        self._rows[1:, :, 3] -= 0.5
        corners = np.array([_corners(s) for s in surfaces])
        self._low, self._high = corners.min(1), corners.max(1)

    def hit(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Which of the straight lines between points (M, 3) and (M, 3) meet a rectangle: bool (M,)."""
        low, high = np.minimum(start, end).min(0), np.maximum(start, end).max(0)
        rows = self._rows[:, ((self._high >= low) & (self._low <= high)).all(1)]
        step = max(_PAIRS_AT_ONCE // max(rows.shape[1], 1), 1)
        blocks = [_hit(start[i : i + step], end[i : i + step], rows) for i in range(0, len(start), step)]
        return np.concatenate(blocks)


def _hit(start: np.ndarray, end: np.ndarray, rows: np.ndarray) -> np.ndarray:
    a, b = (np.concatenate([p, np.ones((len(p), 1))], 1).astype(np.float32) for p in (start, end))
    before, behind = a @ rows[0].T, b @ rows[0].T
    apart = before - behind
    apart[apart == 0] = 1e-9
    share = before / apart
    met = before * behind < 0
    for axis in rows[1:]:
        at, stop = a @ axis.T, b @ axis.T
        stop -= at
        stop *= share
        stop += at
        met &= np.abs(stop) < 0.5
    return met.any(1)


def _edges(surfaces: Sequence[Surface]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [s.edge_u for s in surfaces], [s.edge_v for s in surfaces]


def _corners(surface: Surface) -> np.ndarray:
    o, u, v = surface.origin, surface.edge_u, surface.edge_v
    return np.array([o, o + u, o + v, o + u + v])


def bake(surfaces: Sequence[Surface], lamps: Sequence[Lamp]) -> list[np.ndarray]:
    """Light that falls on each surface: float32 (nv, nu, 3), on a grid from corner to corner; glows as they are."""
    blockers = _Blockers([s for s in surfaces if s.glow is None and _area(s) > _SMALLEST_SHADOW_M2])
    grids = [_grid(s) for s in surfaces]
    points = np.concatenate([g.reshape(-1, 3) for g in grids])
    normals = np.concatenate([np.tile(s.normal, (g.size // 3, 1)) for s, g in zip(surfaces, grids, strict=True)])
    light = np.empty((len(points), 3), np.float32)
    cells, owner = np.unique(np.floor(points / _CELL_M).astype(np.int64), axis=0, return_inverse=True)
    for cell in range(len(cells)):
        here = np.flatnonzero(owner.ravel() == cell)
        light[here] = _light_at(points[here], normals[here], lamps, blockers)
    ends = np.cumsum([g.size // 3 for g in grids])[:-1]
    return [_finish(s, g, part) for s, g, part in zip(surfaces, grids, np.split(light, ends), strict=True)]


def _area(surface: Surface) -> float:
    return float(np.linalg.norm(surface.edge_u) * np.linalg.norm(surface.edge_v))


def _grid(surface: Surface) -> np.ndarray:
    """Points (nv, nu, 3) just above a surface, at least two each way."""
    counts = [max(int(np.linalg.norm(e) / _SPACING_M) + 1, 2) for e in (surface.edge_v, surface.edge_u)]
    # kept off the edges, where a neighbouring rectangle would shade the point by touching it
    rows, cols = (np.clip(np.linspace(0, 1, n), 0.02, 0.98) for n in counts)
    points = surface.origin + cols[None, :, None] * surface.edge_u + rows[:, None, None] * surface.edge_v
    return points + 0.012 * surface.normal


def _finish(surface: Surface, grid: np.ndarray, light: np.ndarray) -> np.ndarray:
    if surface.glow is not None:
        return np.full((2, 2, 3), surface.glow, np.float32)
    return cv2.GaussianBlur(light.reshape(grid.shape), (3, 3), 0.6, borderType=cv2.BORDER_REPLICATE)


def _light_at(points: np.ndarray, normals: np.ndarray, lamps: Sequence[Lamp], blockers: _Blockers) -> np.ndarray:
    light = _AMBIENT * _openness(points, normals, blockers)[:, None]
    for lamp in lamps:
        light = light + _from_lamp(points, normals, lamp, blockers)
    return light


def _from_lamp(points: np.ndarray, normals: np.ndarray, lamp: Lamp, blockers: _Blockers) -> np.ndarray:
    samples = lamp.samples()
    to_lamp = samples[None] - points[:, None]
    distance2 = (to_lamp**2).sum(-1)
    facing = (to_lamp * normals[:, None]).sum(-1) / np.sqrt(distance2)
    weight = np.clip(facing, 0, None) / (distance2 + 0.2)  # softened: a lamp is not a point
    if lamp.normal is not None:
        weight *= np.clip(-(to_lamp @ lamp.normal) / np.sqrt(distance2), 0, None)
    lit = weight * max(lamp.power) > _DIMMEST
    if not lit.any():
        return np.zeros((len(points), 3))
    start = np.broadcast_to(points[:, None], to_lamp.shape)[lit]
    end = np.broadcast_to(samples[None], to_lamp.shape)[lit]
    received = np.zeros_like(weight)
    received[lit] = weight[lit] * ~blockers.hit(start, end)
    return received.mean(1)[:, None] * np.asarray(lamp.power)


def _openness(points: np.ndarray, normals: np.ndarray, blockers: _Blockers) -> np.ndarray:
    """Share of the hemisphere above each point (M, 3) that nothing near covers."""
    directions = _hemisphere(normals)
    start = np.repeat(points, directions.shape[1], 0)
    blocked = blockers.hit(start, start + _AMBIENT_REACH_M * directions.reshape(-1, 3))
    return 1 - 0.75 * blocked.reshape(len(points), -1).mean(1)


def _hemisphere(normals: np.ndarray, count: int = 14) -> np.ndarray:
    """Unit vectors (M, count, 3) about normals (M, 3), denser near them as the cosine asks."""
    index = np.arange(count) + 0.5
    radius, angle = np.sqrt(index / count), index * np.pi * (3 - 5**0.5)
    helper = np.where(np.abs(normals[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    a = np.cross(normals, helper)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = np.cross(normals, a)
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], -1)
    return local @ np.stack([a, b, normals], 1)
