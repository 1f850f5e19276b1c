"""A world to render: every surface, texture and light that a seed gives, packed into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nre_ros.geometry import Pose
from nre_ros.simulation.atlas import Atlas, build_atlas, shelves
from nre_ros.simulation.furniture import person
from nre_ros.simulation.house import build_house
from nre_ros.simulation.lighting import Lamp, bake
from nre_ros.simulation.stock import stock
from nre_ros.simulation.surfaces import Surface


@dataclass(frozen=True)
class Quads:
    """Rectangles as arrays: ``origin``, ``edge_u``, ``edge_v`` (N, 3) as in :class:`Surface`, metres.

    ``texture_rect`` (N, 4) is the x, y, width and height in the texture atlas, ``light_rect`` (N, 4) the x, y of the
    first light sample and the number of steps to the last in each direction.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    texture_rect: np.ndarray
    light_rect: np.ndarray

    def moved(self, map_from_body: Pose) -> Quads:
        """The same rectangles carried along by a body."""
        rotation, translation = map_from_body.rotation.numpy(), map_from_body.translation.numpy()
        origin = self.origin @ rotation.T + translation
        edges = self.edge_u @ rotation.T, self.edge_v @ rotation.T
        return Quads(origin, *edges, self.texture_rect, self.light_rect)

    def __add__(self, other: Quads) -> Quads:
        return Quads(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__dataclass_fields__))

    def __getitem__(self, index: slice | np.ndarray) -> Quads:
        return Quads(*(getattr(self, n)[index] for n in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.origin)


@dataclass(frozen=True)
class World:
    """The house, and a person who is not part of it but may walk through.

    ``person`` stands on the origin and faces -y. ``light`` float32 (h, w, 3) holds the baked light of all quads.
    """

    house: Quads
    person: Quads
    textures: Atlas
    light: np.ndarray


def build_world(seed: int) -> World:
    """The house of a seed; takes some seconds. The same seed gives the same world, texel by texel."""
    rng = np.random.default_rng(seed)
    stuff = stock(rng)
    surfaces, lamps = build_house(rng, stuff)
    return pack_world(surfaces, lamps, person(rng, stuff))


def pack_world(surfaces: Sequence[Surface], lamps: Sequence[Lamp], walker: Sequence[Surface]) -> World:
    """Surfaces that stand still, lit by lamps, and those of the person, as arrays."""
    textures = build_atlas([s.texture for s in (*surfaces, *walker)])
    light, light_rects = _pack_light([*bake(surfaces, lamps), *(_body_light(s) for s in walker)])
    quads = _as_quads([*surfaces, *walker], textures.rects, light_rects)
    return World(quads[: len(surfaces)], quads[len(surfaces) :], textures, light)


def _body_light(surface: Surface) -> np.ndarray:
    """What moves cannot be baked: light from above and one side."""
    level = 0.75 + 0.25 * surface.normal @ np.array([0.4, -0.3, 0.86])
    return np.full((2, 2, 3), level, np.float32)


def _pack_light(lights: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One image (h, w, 3) of all light grids with their edges repeated, and ``light_rect`` of each."""
    sizes = [(g.shape[0] + 2, g.shape[1] + 2) for g in lights]
    places, height = shelves(sizes, 1024, 1)
    image = np.zeros((height, 1024, 3), np.float32)
    for grid, (x, y) in zip(lights, places, strict=True):
        image[y : y + grid.shape[0] + 2, x : x + grid.shape[1] + 2] = np.pad(grid, ((1, 1), (1, 1), (0, 0)), "edge")
    rects = [(x + 1, y + 1, g.shape[1] - 1, g.shape[0] - 1) for g, (x, y) in zip(lights, places, strict=True)]
    return image, np.array(rects, np.float64)


def _as_quads(surfaces: Sequence[Surface], texture_rects: np.ndarray, light_rects: np.ndarray) -> Quads:
    return Quads(
        origin=np.array([s.origin for s in surfaces]),
        edge_u=np.array([s.edge_u for s in surfaces]),
        edge_v=np.array([s.edge_v for s in surfaces]),
        texture_rect=texture_rects.astype(np.float64),
        light_rect=light_rects,
    )
