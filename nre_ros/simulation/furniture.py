"""Pieces of furniture, each built around its own origin on the floor with its front towards -y; metres."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from nre_ros.simulation import pictures
from nre_ros.simulation.materials import Material
from nre_ros.simulation.stock import Stock
from nre_ros.simulation.surfaces import Skin, Surface, box, panel, place, prism

_PRINT_M = 0.002
"""Texel size of printed things, metres: fine enough for a camera an arm's length away."""


def printed(rng: np.random.Generator, picture: pictures.Picture) -> Skin:
    """A skin that draws a picture at the size of the face it covers."""

    def draw(width_m: float, height_m: float) -> np.ndarray:
        return picture(rng, max(round(height_m / _PRINT_M), 8), max(round(width_m / _PRINT_M), 8))

    return draw


def table(rng: np.random.Generator, wood: Material, width: float, depth: float, height: float) -> list[Surface]:
    """A top on four legs, centred on the origin."""
    w, d, leg = width / 2, depth / 2, 0.06
    parts = box(rng, wood, (-w, -d, height - 0.04), (w, d, height))
    for x in (-w + 0.03, w - 0.03 - leg):
        for y in (-d + 0.03, d - 0.03 - leg):
            parts += box(rng, wood, (x, y, 0), (x + leg, y + leg, height - 0.04), hidden="td", upright=True)
    return parts


def chair(rng: np.random.Generator, wood: Material, seat: Material) -> list[Surface]:
    """A dining chair with slats in its back, which stands at +y."""
    parts = box(rng, seat, (-0.21, -0.21, 0.42), (0.21, 0.21, 0.47))
    for x in (-0.2, 0.16):
        parts += box(rng, wood, (x, -0.2, 0), (x + 0.04, -0.16, 0.42), hidden="td", upright=True)
        parts += box(rng, wood, (x, 0.17, 0), (x + 0.04, 0.21, 0.92), hidden="d", upright=True)
    for z in (0.58, 0.7, 0.82):
        parts += box(rng, wood, (-0.16, 0.18, z), (0.16, 0.2, z + 0.07), hidden="lr")
    return parts


def bookshelf(rng: np.random.Generator, wood: Material, width: float, height: float, shelves: int) -> list[Surface]:
    """An open case with its back at y = 0 and its front at y = -0.3, filled with books and a few boxes."""
    depth, board = 0.3, 0.025
    parts = box(rng, wood, (0, -depth, 0), (board, 0, height), upright=True)
    parts += box(rng, wood, (width - board, -depth, 0), (width, 0, height), upright=True)
    parts.append(panel(rng, wood, (board, -0.01, height), (width - 2 * board, 0, 0), (0, 0, -height)))
    levels = np.linspace(0.06, height - board, shelves + 1)
    for z, above in zip(levels, [*levels[1:], None], strict=True):
        parts += box(rng, wood, (board, -depth, z), (width - board, -0.01, z + board), hidden="Blr")
        if above is not None:
            parts += _row_of_books(rng, wood, board, width - board, z + board, above)
    return parts


def _row_of_books(
    rng: np.random.Generator, wood: Material, left: float, right: float, z0: float, z1: float
) -> list[Surface]:
    """Blocks of books of different depth, with gaps and boxes between them."""
    parts: list[Surface] = []
    x = left
    while x < right - 0.12:
        wide = min(rng.uniform(0.18, 0.5), right - x)
        front = -rng.uniform(0.17, 0.28)
        tall = (z1 - z0) * rng.uniform(0.7, 0.95)
        if rng.random() < 0.78:
            spines = printed(rng, pictures.books)
            parts += box(rng, wood, (x, front, z0), (x + wide, -0.02, z0 + tall), front=spines, hidden="Bd")
        elif rng.random() < 0.6:
            cover = printed(rng, pictures.poster)
            parts += box(rng, wood, (x, front, z0), (x + wide * 0.8, -0.02, z0 + tall * 0.7), front=cover, hidden="Bd")
        x += wide
    return parts


def cabinet(
    rng: np.random.Generator,
    body: Material,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    doors: int,
    top: Material | None = None,
) -> list[Surface]:
    """A closed cupboard whose front is divided into doors or drawers with handles."""
    parts = box(rng, body, low, high, top=top)
    width, height = (high[0] - low[0]) / doors, high[2] - low[2]
    for i in range(doors):
        x0 = low[0] + i * width
        door = ((x0 + 0.012, low[1] - 0.018, low[2] + 0.02), (x0 + width - 0.012, low[1], high[2] - 0.02))
        parts += box(rng, body, *door, hidden="B", upright=True)
        grip = x0 + (width - 0.06 if i % 2 == 0 else 0.04)
        middle = low[2] + height * 0.6
        parts += box(
            rng, body, (grip, low[1] - 0.045, middle), (grip + 0.02, low[1] - 0.03, middle + 0.12), upright=True
        )
    return parts


def sofa(rng: np.random.Generator, cover: Material, cushion: Material, width: float) -> list[Surface]:
    """A sofa with its back at y = 0, arms, seat cushions and two scatter cushions."""
    parts = box(rng, cover, (0, -0.85, 0.08), (width, 0, 0.3))
    parts += box(rng, cover, (0, -0.2, 0.3), (width, 0, 0.82))
    for x in (0.0, width - 0.18):
        parts += box(rng, cover, (x, -0.85, 0.3), (x + 0.18, -0.2, 0.6), hidden="d")
    seats = max(round((width - 0.36) / 0.75), 1)
    side = (width - 0.36) / seats
    for i in range(seats):
        x = 0.18 + i * side
        parts += box(rng, cover, (x + 0.01, -0.83, 0.3), (x + side - 0.01, -0.22, 0.44), hidden="d")
    for x, yaw in ((0.42, 12.0), (width - 0.45, -20.0)):
        parts += place(box(rng, cushion, (-0.2, -0.06, 0), (0.2, 0.06, 0.38)), x, -0.3, 0.44, yaw)
    return parts


def plant(rng: np.random.Generator, pot: Material, leaf: Material, height: float) -> list[Surface]:
    """A pot with a stem and a crown of leaves that look different from every side."""
    parts = prism(rng, pot, 0.17, 0, 0.32)
    parts += prism(rng, leaf, 0.02, 0.3, height * 0.7, sides=5, top=False)
    for _ in range(26):
        yaw, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.3)
        out = np.array([np.cos(yaw), np.sin(yaw), 0])
        along = np.sin(tilt) * out + np.array([0, 0, np.cos(tilt)])
        across = np.array([-np.sin(yaw), np.cos(yaw), 0]) * rng.uniform(0.06, 0.11)
        foot = np.array([0, 0, height * rng.uniform(0.35, 0.7)]) + 0.02 * out
        u, v = along * rng.uniform(0.25, 0.45), across
        both_sides = ((foot - v / 2, u, v), (foot + v / 2, u, -v))
        parts += [panel(rng, leaf, origin, edge_u, edge_v) for origin, edge_u, edge_v in both_sides]
    return parts


def floor_lamp(rng: np.random.Generator, pole: Material) -> list[Surface]:
    """A thin pole with a glowing shade."""
    parts = prism(rng, pole, 0.14, 0, 0.03)
    parts += prism(rng, pole, 0.015, 0.03, 1.45, sides=6, top=False)
    shade = box(rng, Material(np.full((20, 20, 3), 235, np.uint8), 0.02), (-0.16, -0.16, 1.4), (0.16, 0.16, 1.7))
    return parts + [Surface(s.origin, s.edge_u, s.edge_v, s.texture, glow=(1.5, 1.2, 0.8)) for s in shade]


def framed(
    rng: np.random.Generator, picture: pictures.Picture, wood: Material, width: float, height: float
) -> list[Surface]:
    """A picture in a frame that is centred on the origin and hangs on a wall at y = 0."""
    w, h, rim = width / 2, height / 2, 0.035
    parts: list[Surface] = []
    for low, high in (
        ((-w, -0.03, h - rim), (w, 0.0, h)),
        ((-w, -0.03, -h), (w, 0.0, -h + rim)),
        ((-w, -0.03, -h + rim), (-w + rim, 0.0, h - rim)),
        ((w - rim, -0.03, -h + rim), (w, 0.0, h - rim)),
    ):
        parts += box(rng, wood, low, high, hidden="B")
    inner = (-w + rim, -0.008, h - rim)
    parts.append(panel(rng, printed(rng, picture), inner, (width - 2 * rim, 0, 0), (0, 0, 2 * rim - height)))
    return parts


def sheet(rng: np.random.Generator, picture: pictures.Picture, width: float, height: float) -> list[Surface]:
    """An unframed print on a wall at y = 0, centred on the origin."""
    corner = (-width / 2, -0.006, height / 2)
    return [panel(rng, printed(rng, picture), corner, (width, 0, 0), (0, 0, -height))]


def sheet_on_table(rng: np.random.Generator, picture: pictures.Picture, width: float, height: float) -> list[Surface]:
    """A print that lies face up, centred on the origin."""
    corner = (-width / 2, height / 2, 0.004)
    return [panel(rng, printed(rng, picture), corner, (width, 0, 0), (0, -height, 0))]


def monitor(rng: np.random.Generator, black: Material, width: float, height: float) -> list[Surface]:
    """A screen on a foot, centred on the origin."""
    parts = box(rng, black, (-0.12, -0.08, 0), (0.12, 0.08, 0.015))
    parts += box(rng, black, (-0.03, 0, 0.015), (0.03, 0.03, 0.2), hidden="td")
    parts += box(rng, black, (-width / 2, -0.04, 0.12), (width / 2, 0, 0.12 + height))
    corner = (-width / 2 + 0.012, -0.042, 0.12 + height - 0.012)
    draw = printed(rng, pictures.screen)
    return [*parts, panel(rng, draw, corner, (width - 0.024, 0, 0), (0, 0, 0.024 - height), glow=(0.7, 0.7, 0.75))]


def carton(rng: np.random.Generator, board: Material, width: float, depth: float, height: float) -> list[Surface]:
    """A cardboard box with print on its sides, centred on the origin."""

    def labelled(w: float, h: float) -> np.ndarray:
        return pictures.label(rng, board.cut(rng, w, h))

    return box(rng, labelled, (-width / 2, -depth / 2, 0), (width / 2, depth / 2, height), top=board, hidden="d")


def radiator(rng: np.random.Generator, white: Material, width: float) -> list[Surface]:
    """A ribbed heater with its back to a wall at y = 0."""
    parts: list[Surface] = []
    for x in np.arange(0, width - 0.05, 0.08):
        parts += box(rng, white, (x, -0.11, 0.12), (x + 0.06, -0.02, 0.68), hidden="B")
    return parts


def curtain(rng: np.random.Generator, cloth: Material, width: float, height: float) -> list[Surface]:
    """Hanging cloth in folds, its upper left corner at the origin, in front of a wall at y = 0."""
    folds = max(int(width / 0.09), 1)
    xs = np.linspace(0, width, folds + 1)
    ys = np.where(np.arange(folds + 1) % 2, -0.11, -0.06)
    whole = cloth.cut(rng, width * 1.15, height)
    cuts = np.linspace(0, whole.shape[1], folds + 1).round().astype(int)
    return [
        Surface(
            np.array([xs[i], ys[i], 0]),
            np.array([xs[i + 1] - xs[i], ys[i + 1] - ys[i], 0]),
            np.array([0, 0, -height]),
            whole[:, cuts[i] : cuts[i + 1]],
        )
        for i in range(folds)
    ]


def clutter(rng: np.random.Generator, stuff: Stock, width: float, depth: float, count: int) -> list[Surface]:
    """Small things strewn over a table top of a given size, centred on the origin."""
    parts: list[Surface] = []
    choice = (stuff.clay, stuff.steel, stuff.black, stuff.check, stuff.oak, stuff.cardboard, stuff.leather)
    columns = np.linspace(-width / 2, width / 2, count + 1)
    for left, right in pairwise(columns):
        x, y = (left + right) / 2, rng.uniform(-depth / 4, depth / 4)
        material = choice[int(rng.integers(len(choice)))]
        size = min(right - left, depth) * rng.uniform(0.25, 0.45)
        tall, kind = rng.uniform(0.06, 0.28), rng.integers(4)
        if kind == 0:
            thing = prism(rng, material, min(size / 2, 0.07), 0, tall)
        elif kind == 1:
            thing = sheet_on_table(rng, pictures.paper, 0.21, 0.297)
        elif kind == 2:
            thing = carton(rng, material, size, size * 0.7, tall)
        else:
            cover = printed(rng, pictures.poster)
            spine = printed(rng, pictures.books)
            thing = box(rng, spine, (-0.1, -0.075, 0), (0.1, 0.075, 0.05), top=cover, hidden="d")
        parts += place(thing, x, y, 0, rng.uniform(-40, 40))
    return parts


def person(rng: np.random.Generator, stuff: Stock) -> list[Surface]:
    """Someone 1.75 m tall in a checked shirt, facing -y, centred on the origin."""
    parts: list[Surface] = []
    for x in (-0.17, 0.03):
        parts += box(rng, stuff.black, (x, -0.09, 0.06), (x + 0.14, 0.09, 0.85), hidden="td")
        parts += box(rng, stuff.walnut, (x, -0.18, 0), (x + 0.13, 0.09, 0.08), hidden="d")
    parts += box(rng, stuff.check, (-0.2, -0.12, 0.85), (0.2, 0.12, 1.45))
    for x in (-0.3, 0.2):
        parts += box(rng, stuff.check, (x, -0.07, 0.8), (x + 0.1, 0.07, 1.44))
    skin = stuff.cardboard
    parts += box(rng, skin, (-0.05, -0.05, 1.45), (0.05, 0.05, 1.53), hidden="td")
    return parts + box(rng, skin, (-0.085, -0.1, 1.52), (0.085, 0.1, 1.76), top=stuff.walnut)
