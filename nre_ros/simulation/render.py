"""Pictures of the world: what light each ray of a camera brings, smooth at the edges and without aliasing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.geometry import Camera, Pose
from nre_ros.simulation.atlas import LEVELS, remap
from nre_ros.simulation.casting import cast, nearest_of, planes, rays
from nre_ros.simulation.world import World

_TAPS = (-0.375, -0.125, 0.125, 0.375)
"""Texture samples along the longer axis of a pixel's footprint, in footprints."""

_EDGE_OFFSETS_PX = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))
_RAYS_AT_ONCE = 16384
"""Small enough for the processor's cache."""


@dataclass(frozen=True)
class Rendering:
    """``radiance`` float32 (H, W, 3), linear light; ``depth_m`` float32 (H, W), along z; ``quad`` int32 (H, W).

    Indices in ``quad`` at or beyond ``len(world.house)`` belong to the person. Depth is that of the pixel's centre,
    infinite where a ray meets nothing; radiance is averaged over the pixel.
    """

    radiance: np.ndarray
    depth_m: np.ndarray
    quad: np.ndarray


def render(
    world: World,
    camera: Camera,
    map_from_cam: Pose,
    map_from_person: Pose | None = None,
    *,
    smooth_edges: bool = True,
) -> Rendering:
    """What an ideal camera sees from a float64 pose inside the house; the person is there if a pose is given.

    Without ``smooth_edges`` the outlines of rectangles are jagged: a third cheaper, for views that are averaged.
    """
    quads = world.house if map_from_person is None else world.house + world.person.moved(map_from_person)
    x, y = rays(camera)
    rows = planes(quads, map_from_cam)
    inverse_depth, quad = cast(quads, rows, map_from_cam, camera)
    table = np.concatenate([rows.reshape(9, -1), quads.texture_rect.T, quads.light_rect.T]).astype(np.float32)
    shader = _Shader(world, table, (1 / camera.fx, 1 / camera.fy))
    radiance = shader.light(quad.ravel(), x.ravel(), y.ravel()).reshape(*x.shape, 3)
    border, candidates = _borders(quad)
    if smooth_edges and border.any():
        choice = np.take(table[:9], candidates, axis=1).reshape(3, 3, *candidates.shape)
        mean = np.zeros((candidates.shape[1], 3), np.float32)
        for du, dv in _EDGE_OFFSETS_PX:
            sx, sy = x[border] + np.float32(du / camera.fx), y[border] + np.float32(dv / camera.fy)
            met = np.take_along_axis(candidates, nearest_of(choice, sx, sy)[None], 0)[0]
            mean += shader.light(met, sx, sy)
        radiance[border] = mean / len(_EDGE_OFFSETS_PX)
    with np.errstate(divide="ignore"):
        return Rendering(radiance, 1 / inverse_depth, quad)


def _borders(quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (H, W) next to one of another rectangle, and for each of those M the rectangles (5, M) about it."""
    padded = np.pad(quad, 1, mode="edge")
    around = np.stack([quad, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
    border = (around[1:] != quad).any(0)
    return border, around[:, border]


@dataclass(frozen=True)
class _Shader:
    """``table`` (17, N) holds each rectangle's nine plane coefficients, its texture rectangle and its light rectangle.

    ``pixel`` is the distance of neighbouring rays in x and y; distortion changes it too little to matter here.
    """

    world: World
    table: np.ndarray
    pixel: tuple[float, float]

    def light(self, quad: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Linear light (M, 3) that rays (x, y, 1) bring from the rectangles they meet; all (M,)."""
        light = np.empty((len(quad), 3), np.float32)
        for start in range(0, len(quad), _RAYS_AT_ONCE):
            part = slice(start, start + _RAYS_AT_ONCE)
            light[part] = self._some(quad[part], x[part], y[part])
        return light

    def _some(self, quad: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        rows = np.take(self.table, quad, axis=1)
        left, top, width, height, light_x, light_y, steps_u, steps_v = rows[9:]
        inverse_q = 1 / (rows[0] * x + rows[1] * y + rows[2])
        s = (rows[3] * x + rows[4] * y + rows[5]) * inverse_q
        t = (rows[6] * x + rows[7] * y + rows[8]) * inverse_q
        # how far the texture moves, in texels, from one pixel to the next along image rows (u) and columns (v)
        du_s, dv_s = ((rows[3 + k] - s * rows[k]) * inverse_q * width * np.float32(self.pixel[k]) for k in range(2))
        du_t, dv_t = ((rows[6 + k] - t * rows[k]) * inverse_q * height * np.float32(self.pixel[k]) for k in range(2))
        along_row = du_s * du_s + du_t * du_t >= dv_s * dv_s + dv_t * dv_t
        step_s, step_t = np.where(along_row, du_s, dv_s), np.where(along_row, du_t, dv_t)
        major = np.sqrt(step_s * step_s + step_t * step_t) + np.float32(1e-9)
        minor = np.abs(du_s * dv_t - dv_s * du_t) / major
        level = np.log2(np.clip(np.maximum(minor, major / len(_TAPS)), 1, 2 ** (LEVELS - 1)))
        s, t = np.clip(s + np.float32(0.5), 0, 1), np.clip(t + np.float32(0.5), 0, 1)
        colour = np.zeros((len(quad), 3), np.uint16)
        for number, tap in enumerate(_TAPS):
            tx = left + np.clip(s * width + np.float32(tap) * step_s, 0, width)
            ty = top + np.clip(t * height + np.float32(tap) * step_t, 0, height)
            # rounding each tap's level at another threshold blends the two nearest levels over the four taps
            rounded = np.minimum((level + np.float32((number + 0.5) / len(_TAPS))).astype(np.int32), LEVELS - 1)
            colour += self.world.textures.sample(tx, ty, rounded)
        linear = (colour * np.float32(1 / (255 * len(_TAPS)))) ** 2
        return linear * remap(self.world.light, light_x + s * steps_u, light_y + t * steps_v)
