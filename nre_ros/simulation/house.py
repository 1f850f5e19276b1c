"""The floor plan: a living room, a kitchen and a study, joined in a ring by three doorways. Metres, x east, y north."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nre_ros.simulation import furniture as fit
from nre_ros.simulation import materials, pictures, rooms
from nre_ros.simulation.lighting import Lamp
from nre_ros.simulation.materials import Material
from nre_ros.simulation.noise import Colour, vary
from nre_ros.simulation.rooms import CEILING_HEIGHT_M, WALL_TEXEL_M, Opening, Room
from nre_ros.simulation.stock import Stock
from nre_ros.simulation.surfaces import Skin, Surface, panel, place

LIVING = Room(0.0, 0.0, 5.4, 5.0)
KITCHEN = Room(5.5, 0.0, 9.5, 5.0)
STUDY = Room(2.5, 5.1, 9.5, 8.6)

_SIDES = ("north", "east", "south", "west")
_DOOR_TOP_M = 2.1

_HOLES: dict[Room, dict[str, list[Opening]]] = {
    LIVING: {
        "north": [Opening(3.6, 1.1, 0, _DOOR_TOP_M)],
        "east": [Opening(2.7, 1.1, 0, _DOOR_TOP_M)],
        "south": [Opening(0.6, 1.4, 0.9, 2.2)],
    },
    KITCHEN: {
        "north": [Opening(2.4, 1.0, 0, _DOOR_TOP_M)],
        "west": [Opening(1.2, 1.1, 0, _DOOR_TOP_M)],
        "south": [Opening(1.4, 1.6, 1.0, 2.2)],
    },
    STUDY: {
        "south": [Opening(0.6, 1.0, 0, _DOOR_TOP_M), Opening(4.8, 1.1, 0, _DOOR_TOP_M)],
        "east": [Opening(1.0, 1.4, 0.9, 2.2)],
    },
}


def build_house(rng: np.random.Generator, stuff: Stock) -> tuple[list[Surface], list[Lamp]]:
    """Everything that stands still, and what lights it."""
    surfaces, lamps = _shells(rng, stuff)
    for furnish in (_living_room, _kitchen, _study):
        surfaces += furnish(rng, stuff)
    for x, y, power in ((2.6, 2.7, 2.6), (7.3, 2.5, 2.4), (4.6, 6.9, 2.0), (7.7, 6.7, 2.0)):
        shade, lamp = rooms.ceiling_light(x, y, power)
        surfaces += shade
        lamps.append(lamp)
    return surfaces, lamps


def _shells(rng: np.random.Generator, stuff: Stock) -> tuple[list[Surface], list[Lamp]]:
    """Floors, ceilings, walls with their linings, and windows."""
    surfaces: list[Surface] = []
    lamps: list[Lamp] = []
    for room in (LIVING, KITCHEN, STUDY):
        for side in _SIDES:
            holes = _HOLES[room].get(side, [])
            surfaces += rooms.wall(room, side, _wall_paper(rng, room, side), holes)
            surfaces += rooms.skirting(rng, room, side, stuff.white, holes)
            for hole in holes:
                if hole.bottom <= 0:
                    surfaces += rooms.lining(rng, room, side, stuff.white, hole, 0.05)
                else:
                    parts, lamp = rooms.window(rng, room, side, stuff.white, hole)
                    surfaces += parts
                    lamps.append(lamp)
        width, depth = room.x1 - room.x0, room.y1 - room.y0
        floor = panel(rng, _floor(rng, room), (room.x0, room.y1, 0), (width, 0, 0), (0, -depth, 0))
        ceiling = Material(materials.plaster(rng, 500, 700, (236, 234, 228)), 0.01)
        corner = (room.x0, room.y0, CEILING_HEIGHT_M)
        surfaces += [floor, panel(rng, ceiling, corner, (width, 0, 0), (0, depth, 0))]
    return surfaces, lamps


def _wall_paper(rng: np.random.Generator, room: Room, side: str) -> np.ndarray:
    size = round(CEILING_HEIGHT_M / WALL_TEXEL_M), round(room.length(side) / WALL_TEXEL_M)
    if (room, side) == (LIVING, "west"):
        return materials.wallpaper(rng, *size, vary(rng, (206, 194, 164), 0.05), vary(rng, (150, 124, 92), 0.08))
    if (room, side) == (KITCHEN, "west"):
        return materials.bricks(rng, *size, vary(rng, (150, 84, 62), 0.05), (186, 180, 168))
    colours: dict[Room, Colour] = {LIVING: (226, 214, 192), KITCHEN: (214, 222, 224), STUDY: (206, 214, 190)}
    colour: Colour = (96, 120, 136) if (room, side) == (STUDY, "west") else colours[room]
    return materials.plaster(rng, *size, vary(rng, colour, 0.03))


def _floor(rng: np.random.Generator, room: Room) -> Skin:
    def draw(width_m: float, depth_m: float) -> np.ndarray:
        size = round(depth_m / WALL_TEXEL_M), round(width_m / WALL_TEXEL_M)
        if room is KITCHEN:
            return materials.tiles(rng, *size, vary(rng, (186, 176, 160), 0.05), 95, 0.08)
        tone: Colour = (158, 112, 70) if room is LIVING else (124, 96, 72)
        return materials.planks(rng, *size, vary(rng, tone, 0.05), 38)

    return draw


def _on_wall(rng: np.random.Generator, stuff: Stock, room: Room, pieces: Sequence[tuple]) -> list[Surface]:
    """Pictures given as side, place along it, height of the middle, width, height, picture, framed or not."""
    surfaces: list[Surface] = []
    for side, along, z, width, height, picture, framed in pieces:
        if framed:
            wood = (stuff.oak, stuff.walnut, stuff.black)[int(rng.integers(3))]
            parts = fit.framed(rng, picture, wood, width, height)
        else:
            parts = fit.sheet(rng, picture, width, height)
        surfaces += room.against(parts, side, along, z)
    return surfaces


def _living_room(rng: np.random.Generator, stuff: Stock) -> list[Surface]:
    rug_colours: list[Colour] = [(116, 32, 36), (34, 44, 84), (196, 178, 140), (156, 92, 54), (52, 72, 60)]
    rug = Material(materials.carpet(rng, 570, 800, [vary(rng, c, 0.08) for c in rug_colours]), 0.003)
    parts = [panel(rng, lambda w, h: rug.sheet, (1.1, 3.2, 0.008), (2.4, 0, 0), (0, -1.71, 0))]
    parts += LIVING.against(fit.bookshelf(rng, stuff.oak, 1.6, 2.0, 5), "west", 0.9)
    parts += LIVING.against(fit.sofa(rng, stuff.leather, stuff.check, 2.1), "south", 2.35)
    parts += place(fit.table(rng, stuff.walnut, 1.0, 0.55, 0.42), 2.1, 1.65)
    parts += place(fit.clutter(rng, stuff, 0.9, 0.5, 3), 2.1, 1.65, 0.42)
    parts += LIVING.against(fit.cabinet(rng, stuff.white, (0, -0.42, 0), (1.9, 0, 0.5), 3, stuff.oak), "north", 0.5)
    parts += place(fit.monitor(rng, stuff.black, 1.15, 0.66), 1.4, 4.8, 0.5)
    parts += place(fit.clutter(rng, stuff, 0.4, 0.35, 1), 2.2, 4.75, 0.5)
    parts += LIVING.against(fit.cabinet(rng, stuff.walnut, (0, -0.42, 0), (1.8, 0, 0.8), 4), "east", 0.3)
    parts += place(fit.clutter(rng, stuff, 1.7, 0.4, 5), 5.18, 3.8, 0.8, -90)
    parts += LIVING.against(fit.radiator(rng, stuff.white, 1.1), "south", 0.75)
    for along in (0.2, 1.98):
        parts += LIVING.against(fit.curtain(rng, stuff.curtain, 0.36, 2.2), "south", along, 2.36)
    parts += place(fit.plant(rng, stuff.clay, stuff.leaf, 1.5), 0.45, 0.45)
    parts += place(fit.floor_lamp(rng, stuff.black), 0.4, 2.85)
    pieces = [
        ("west", 3.55, 1.55, 1.0, 0.72, pictures.landscape, True),
        ("west", 4.5, 1.5, 0.5, 0.7, pictures.poster, False),
        ("south", 3.4, 1.55, 1.2, 0.75, pictures.abstract_painting, True),
        ("north", 2.9, 1.5, 0.6, 0.85, pictures.poster, False),
        ("north", 0.35, 1.65, 0.42, 0.6, pictures.abstract_painting, True),
        ("north", 1.45, 1.75, 0.8, 0.4, pictures.landscape, True),
        ("north", 5.08, 1.55, 0.42, 0.6, pictures.paper, True),
        ("east", 0.75, 1.6, 0.6, 0.8, pictures.abstract_painting, True),
        ("east", 1.65, 1.55, 0.75, 0.55, pictures.landscape, True),
        ("east", 4.4, 1.5, 0.6, 0.85, pictures.poster, False),
    ]
    return parts + _on_wall(rng, stuff, LIVING, pieces)


def _kitchen(rng: np.random.Generator, stuff: Stock) -> list[Surface]:
    def splash(width_m: float, height_m: float) -> np.ndarray:
        return materials.tiles(rng, round(height_m / 0.003), round(width_m / 0.003), (220, 216, 206), 50)

    parts = KITCHEN.against(fit.cabinet(rng, stuff.oak, (0, -0.6, 0.08), (3.3, 0, 0.9), 6, stuff.stone), "east", 1.6)
    parts += KITCHEN.against([panel(rng, splash, (0, -0.004, 1.45), (3.3, 0, 0), (0, 0, -0.55))], "east", 1.6)
    for along, width, doors in ((1.6, 1.2, 2), (3.5, 1.4, 3)):
        upper = fit.cabinet(rng, stuff.white, (0, -0.35, 1.45), (width, 0, 2.1), doors)
        parts += KITCHEN.against(upper, "east", along)
    parts += place(fit.clutter(rng, stuff, 3.1, 0.45, 8), 9.2, 1.75, 0.9, -90)
    parts += KITCHEN.against(fit.cabinet(rng, stuff.steel, (0, -0.68, 0.02), (0.7, 0, 1.85), 1), "east", 0.8)
    for x, z, picture in ((0.2, 1.45, pictures.paper), (0.46, 1.2, pictures.poster), (0.25, 1.1, pictures.landscape)):
        note = place(fit.sheet(rng, picture, 0.16, 0.2), x, -0.7, z)
        parts += KITCHEN.against(note, "east", 0.8)
    parts += place(fit.table(rng, stuff.oak, 1.3, 0.75, 0.74), 6.5, 3.9)
    parts += place(fit.clutter(rng, stuff, 1.2, 0.6, 4), 6.5, 3.9, 0.74)
    for x, y, yaw in ((6.2, 3.4, 176), (6.75, 4.5, 8), (7.35, 3.9, -82)):
        parts += place(fit.chair(rng, stuff.walnut, stuff.bedding), x, y, 0, yaw)
    parts += KITCHEN.against(fit.radiator(rng, stuff.white, 1.3), "south", 1.5)
    parts += place(fit.carton(rng, stuff.cardboard, 0.5, 0.4, 0.45), 5.85, 0.35, 0, 75)
    parts += place(fit.carton(rng, stuff.cardboard, 0.4, 0.35, 0.3), 5.87, 0.37, 0.45, 100)
    pieces = [
        ("west", 0.62, 1.55, 0.6, 0.8, pictures.poster, True),
        ("west", 3.0, 1.5, 0.6, 0.85, pictures.poster, False),
        ("west", 3.95, 1.55, 0.9, 0.6, pictures.landscape, True),
        ("south", 0.75, 1.9, 0.36, 0.36, pictures.clock, True),
        ("south", 3.5, 1.55, 0.55, 0.75, pictures.abstract_painting, True),
        ("north", 0.55, 1.6, 0.45, 0.62, pictures.calendar, False),
        ("north", 1.5, 1.55, 0.9, 0.65, pictures.abstract_painting, True),
        ("north", 3.75, 1.5, 0.4, 0.56, pictures.paper, False),
    ]
    return parts + _on_wall(rng, stuff, KITCHEN, pieces)


def _study(rng: np.random.Generator, stuff: Stock) -> list[Surface]:
    parts = STUDY.against(fit.bookshelf(rng, stuff.walnut, 1.8, 2.1, 5), "north", 0.3)
    parts += STUDY.against(fit.bookshelf(rng, stuff.white, 1.2, 1.2, 3), "north", 2.3)
    parts += place(fit.clutter(rng, stuff, 1.1, 0.28, 3), 5.4, 8.45, 1.2)
    parts += place(fit.table(rng, stuff.oak, 1.9, 0.75, 0.74), 7.45, 8.2)
    parts += place(fit.monitor(rng, stuff.black, 0.58, 0.36), 7.1, 8.35, 0.74, 8)
    parts += place(fit.monitor(rng, stuff.black, 0.58, 0.36), 7.78, 8.33, 0.74, -14)
    parts += place(fit.clutter(rng, stuff, 1.8, 0.3, 6), 7.45, 7.98, 0.74)
    parts += place(fit.chair(rng, stuff.black, stuff.leather), 7.3, 7.65, 0, 196)
    parts += STUDY.against(fit.cabinet(rng, stuff.steel, (0, -0.45, 0.03), (1.5, 0, 1.0), 3), "west", 1.1)
    parts += place(fit.clutter(rng, stuff, 1.4, 0.4, 4), 2.73, 6.95, 1.0, 90)
    parts += place(fit.plant(rng, stuff.steel, stuff.leaf, 1.7), 2.95, 5.55)
    parts += STUDY.against(fit.cabinet(rng, stuff.white, (0, -0.4, 0), (1.9, 0, 0.75), 4, stuff.walnut), "south", 2.2)
    parts += place(fit.clutter(rng, stuff, 1.8, 0.35, 5), 6.35, 5.3, 0.75, 180)
    parts += STUDY.against(fit.radiator(rng, stuff.white, 1.1), "east", 1.15)
    for along in (0.58, 2.4):
        parts += STUDY.against(fit.curtain(rng, stuff.check, 0.36, 2.2), "east", along, 2.36)
    for x, y, z, yaw in ((9.18, 5.45, 0, 10), (9.2, 5.44, 0.4, -12), (9.16, 5.46, 0.8, 25)):
        parts += place(fit.carton(rng, stuff.cardboard, 0.45, 0.42, 0.4), x, y, z, yaw)
    pieces = [
        ("north", 4.95, 1.75, 1.5, 0.95, pictures.whiteboard, True),
        ("north", 2.9, 1.8, 0.9, 0.6, pictures.landscape, True),
        ("north", 6.4, 1.5, 0.6, 0.85, pictures.poster, False),
        ("west", 1.8, 1.7, 1.2, 0.8, pictures.landscape, True),
        ("west", 3.0, 1.5, 0.5, 0.7, pictures.poster, False),
        ("south", 2.3, 1.5, 0.6, 0.85, pictures.poster, False),
        ("south", 3.3, 1.55, 1.0, 0.7, pictures.abstract_painting, True),
        ("south", 4.3, 1.6, 0.42, 0.6, pictures.calendar, False),
        ("south", 6.4, 1.5, 0.6, 0.8, pictures.poster, True),
        ("east", 3.05, 1.7, 0.42, 0.6, pictures.paper, False),
    ]
    return parts + _on_wall(rng, stuff, STUDY, pieces)
