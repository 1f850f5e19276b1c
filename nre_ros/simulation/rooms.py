"""Rooms with openings in their walls: doors that lead on, windows that let light in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nre_ros.simulation import pictures
from nre_ros.simulation.lighting import Lamp
from nre_ros.simulation.materials import Material
from nre_ros.simulation.surfaces import Surface, box, panel, place

WALL_TEXEL_M = 0.0035
"""About one texel a pixel at two metres for a 640 pixel camera."""

DAYLIGHT = (1.9, 2.1, 2.4)
CEILING_HEIGHT_M = 2.6


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: ``left`` from the wall's left end as seen from inside the room; metres."""

    left: float
    width: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Room:
    """A rectangular room between two corners of the floor plan (metres, map frame), floor at z = 0."""

    x0: float
    y0: float
    x1: float
    y1: float

    def length(self, side: str) -> float:
        """Of a wall: "north" is y = y1, "east" is x = x1."""
        return self.x1 - self.x0 if side in ("north", "south") else self.y1 - self.y0

    def at(self, side: str, along: float) -> tuple[float, float, float]:
        """x, y and yaw (degrees) of a thing on a wall, ``along`` metres from its left end as seen from inside.

        There the thing's own x axis runs to the right along the wall and its -y axis points into the room.
        """
        if side == "north":
            return self.x0 + along, self.y1, 0.0
        if side == "south":
            return self.x1 - along, self.y0, 180.0
        if side == "east":
            return self.x1, self.y1 - along, -90.0
        return self.x0, self.y0 + along, 90.0

    def against(self, parts: Sequence[Surface], side: str, along: float, z: float = 0.0) -> list[Surface]:
        """A piece of furniture put against a wall."""
        x, y, yaw = self.at(side, along)
        return place(parts, x, y, z, yaw)


def wall(room: Room, side: str, paper: np.ndarray, openings: Sequence[Opening] = ()) -> list[Surface]:
    """One wall, covered by an image (h, w, 3) of the whole of it, left open at its openings."""
    length, tall = room.length(side), CEILING_HEIGHT_M
    pieces: list[tuple[float, float, float, float]] = []
    x = 0.0
    for hole in sorted(openings, key=lambda o: o.left):
        pieces.append((x, hole.left, 0, tall))
        pieces.append((hole.left, hole.left + hole.width, hole.top, tall))
        pieces.append((hole.left, hole.left + hole.width, 0, hole.bottom))
        x = hole.left + hole.width
    pieces.append((x, length, 0, tall))
    height_px, width_px = paper.shape[:2]
    parts = []
    for left, right, bottom, top in pieces:
        if right - left < 1e-6 or top - bottom < 1e-6:
            continue
        cols = slice(round(left / length * width_px), max(round(right / length * width_px), 1))
        rows = slice(round((1 - top / tall) * height_px), round((1 - bottom / tall) * height_px))
        origin, u, v = np.array([left, 0, top]), np.array([right - left, 0, 0]), np.array([0, 0, bottom - top])
        parts.append(Surface(origin, u, v, paper[rows, cols]))
    return room.against(parts, side, 0)


def skirting(
    rng: np.random.Generator, room: Room, side: str, wood: Material, openings: Sequence[Opening] = ()
) -> list[Surface]:
    """A board along the foot of a wall, not across its doors."""
    doors = sorted((o for o in openings if o.bottom <= 0), key=lambda o: o.left)
    ends = [0.0, *(e for o in doors for e in (o.left, o.left + o.width)), room.length(side)]
    parts: list[Surface] = []
    for left, right in zip(ends[::2], ends[1::2], strict=True):
        if right - left > 0.02:
            parts += box(rng, wood, (left, -0.015, 0), (right, 0, 0.08), hidden="Bd")
    return room.against(parts, side, 0)


def lining(
    rng: np.random.Generator, room: Room, side: str, wood: Material, hole: Opening, depth: float
) -> list[Surface]:
    """The reveal of an opening, ``depth`` metres into the wall, and a narrow architrave on the room's side."""
    low, high, left, right = hole.bottom, hole.top, hole.left, hole.left + hole.width
    parts = [
        panel(rng, wood, (left, 0, high), (0, depth, 0), (0, 0, low - high), turned=True),
        panel(rng, wood, (right, depth, high), (0, -depth, 0), (0, 0, low - high), turned=True),
        panel(rng, wood, (left, 0, high), (right - left, 0, 0), (0, depth, 0)),
        panel(rng, wood, (left, depth, low), (right - left, 0, 0), (0, -depth, 0)),
    ]
    rim = 0.06
    for x0, x1 in ((left - rim, left), (right, right + rim)):
        parts += box(rng, wood, (x0, -0.02, low), (x1, 0, high + rim), hidden="Bd", upright=True)
    parts += box(rng, wood, (left, -0.02, high), (right, 0, high + rim), hidden="Blr")
    return room.against(parts, side, 0)


def window(
    rng: np.random.Generator, room: Room, side: str, wood: Material, hole: Opening
) -> tuple[list[Surface], Lamp]:
    """A window with bars before a bright landscape, and the daylight that comes through."""
    depth, low, left, right = 0.09, hole.bottom, hole.left, hole.left + hole.width
    width, height = hole.width, hole.top - hole.bottom
    view = pictures.landscape(rng, round(height / 0.004), round(width / 0.004))
    corner = np.array([left, depth, hole.top])
    pane = Surface(corner, np.array([width, 0, 0]), np.array([0, 0, -height]), view, glow=DAYLIGHT)
    parts = box(rng, wood, (left - 0.08, -0.12, low - 0.03), (right + 0.08, 0.02, low), hidden="B")
    bar = 0.045
    for x in (left, left + width / 2 - bar / 2, right - bar):
        parts += box(rng, wood, (x, depth - 0.04, low), (x + bar, depth, hole.top), hidden="Btd", upright=True)
    for z in (low, low + height * 0.68, hole.top - bar):
        parts += box(rng, wood, (left, depth - 0.035, z), (right, depth, z + bar), hidden="Blr")
    placed = room.against([pane], side, 0)[0]
    lamp = Lamp.on(placed, tuple(1.6 * width * height * c for c in (0.9, 1.0, 1.15)))
    return [placed, *room.against(parts, side, 0), *lining(rng, room, side, wood, hole, depth)], lamp


def ceiling_light(x: float, y: float, power: float) -> tuple[list[Surface], Lamp]:
    """An opal box that hangs below the ceiling and shines to all sides."""
    opal = Material(np.full((30, 30, 3), 250, np.uint8), 0.02)
    rng = np.random.default_rng(0)
    z = CEILING_HEIGHT_M - 0.32
    shade = box(rng, opal, (x - 0.2, y - 0.2, z), (x + 0.2, y + 0.2, z + 0.14))
    glowing = [Surface(s.origin, s.edge_u, s.edge_v, s.texture, glow=(1.6, 1.45, 1.2)) for s in shade]
    cord = box(rng, opal, (x - 0.01, y - 0.01, z + 0.14), (x + 0.01, y + 0.01, CEILING_HEIGHT_M), hidden="td")
    lamp = Lamp(
        centre=np.array([x, y, z + 0.07]),
        edge_u=np.array([0.4, 0, 0]),
        edge_v=np.array([0, 0.4, 0]),
        power=(power, 0.92 * power, 0.78 * power),
        normal=None,
    )
    return glowing + cord, lamp
