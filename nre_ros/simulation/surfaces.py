"""Textured rectangles, and boxes and prisms made of them: all the geometry of the rendered world."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from nre_ros.simulation.materials import Material


@dataclass(frozen=True)
class Surface:
    """A rectangle that is seen from its front only.

    ``origin`` (3,) is its top-left corner as seen from the front, ``edge_u`` (3,) leads to the right and ``edge_v``
    (3,), at a right angle to it, downwards; metres in the map frame, z up. ``texture`` uint8 (h, w, 3) covers it;
    ``glow`` (linear red, green, blue) makes it shine by itself instead of being lit.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    texture: np.ndarray
    glow: tuple[float, float, float] | None = None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector out of the front."""
        outwards = np.cross(self.edge_v, self.edge_u)
        return outwards / np.linalg.norm(outwards)

    def placed(self, xyz: Iterable[float], yaw_rad: float = 0.0) -> Surface:
        """Turned about the z axis, then moved."""
        turn = rotation_z(yaw_rad)
        return replace(
            self,
            origin=turn @ self.origin + np.asarray(tuple(xyz)),
            edge_u=turn @ self.edge_u,
            edge_v=turn @ self.edge_v,
        )


def rotation_z(yaw_rad: float) -> np.ndarray:
    """(3, 3) turn about the z axis, anticlockwise from above."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


Skin = Material | Callable[[float, float], np.ndarray]
"""What covers a face: a material to cut from, or a function of width and height in metres that gives the image."""


def place(surfaces: Iterable[Surface], x: float, y: float, z: float = 0.0, yaw_deg: float = 0.0) -> list[Surface]:
    """A piece of furniture, built around its own origin, put where it belongs."""
    return [s.placed((x, y, z), np.deg2rad(yaw_deg)) for s in surfaces]


def panel(
    rng: np.random.Generator,
    skin: Skin,
    origin: Iterable[float],
    edge_u: Iterable[float],
    edge_v: Iterable[float],
    glow: tuple[float, float, float] | None = None,
    turned: bool = False,
) -> Surface:
    """One rectangle covered by a skin."""
    o, u, v = (np.array(tuple(a), np.float64) for a in (origin, edge_u, edge_v))
    width, height = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    texture = skin.cut(rng, width, height, turned) if isinstance(skin, Material) else skin(width, height)
    return Surface(o, u, v, texture, glow)


def box(
    rng: np.random.Generator,
    skin: Skin,
    low: Iterable[float],
    high: Iterable[float],
    *,
    front: Skin | None = None,
    top: Skin | None = None,
    hidden: str = "",
    upright: bool = False,
) -> list[Surface]:
    """An axis-aligned box between two corners, in its own frame.

    The front looks towards -y, left is -x. ``hidden`` leaves faces out, by their initials out of
    "front", "Back", "left", "right", "top", "down" (f, B, l, r, t, d). ``upright`` runs the grain upwards at the sides.
    """
    x0, y0, z0 = low
    x1, y1, z1 = high
    wx, wy, wz = (x1 - x0, 0, 0), (0, y1 - y0, 0), (0, 0, z0 - z1)
    back_x, back_y = (x0 - x1, 0, 0), (0, y0 - y1, 0)
    faces: dict[str, tuple[Skin, tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
        "f": (front or skin, (x0, y0, z1), wx, wz),
        "B": (skin, (x1, y1, z1), back_x, wz),
        "l": (skin, (x0, y1, z1), back_y, wz),
        "r": (skin, (x1, y0, z1), wy, wz),
        "t": (top or skin, (x0, y1, z1), wx, back_y),
        "d": (skin, (x0, y0, z0), wx, wy),
    }
    return [
        panel(rng, cover, origin, u, v, turned=upright and face in "fBlr")
        for face, (cover, origin, u, v) in faces.items()
        if face not in hidden
    ]


def prism(
    rng: np.random.Generator, skin: Material, radius: float, z0: float, z1: float, sides: int = 10, top: bool = True
) -> list[Surface]:
    """An upright round thing of flat sides about the z axis, closed by a lid of turned squares."""
    angles = np.arange(sides + 1) * 2 * np.pi / sides
    rim = radius * np.stack([np.cos(angles), np.sin(angles)], -1)
    length = float(np.linalg.norm(rim[1] - rim[0])) * sides
    around = skin.cut(rng, length, z1 - z0)
    cuts = np.linspace(0, around.shape[1], sides + 1).round().astype(int)
    faces = []
    for i in range(sides):
        a, b = rim[i], rim[i + 1]
        strip = around[:, cuts[i] : max(cuts[i + 1], cuts[i] + 1)]
        faces.append(Surface(np.array([*a, z1]), np.array([*(b - a), 0]), np.array([0, 0, z0 - z1]), strip))
    half = radius * 0.66
    for turn in range(3 if top else 0):
        lid = panel(rng, skin, (-half, half, z1 - 0.002 * (1 + turn)), (2 * half, 0, 0), (0, -2 * half, 0))
        faces.append(lid.placed((0, 0, 0), turn * np.pi / 6))
    return faces
