"""The materials that one world is built from, sampled once from its seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.simulation import materials
from nre_ros.simulation.materials import Material
from nre_ros.simulation.noise import Colour, vary

_SIDE = 700
_FINE_M = 0.003


@dataclass(frozen=True)
class Stock:
    """Sheets that furniture and fittings are cut from."""

    oak: Material
    walnut: Material
    white: Material
    steel: Material
    black: Material
    stone: Material
    cardboard: Material
    leather: Material
    check: Material
    curtain: Material
    clay: Material
    leaf: Material
    bedding: Material


def stock(rng: np.random.Generator) -> Stock:
    """Every material of a world."""

    def sheet(image: np.ndarray, texel_m: float = _FINE_M) -> Material:
        return Material(image, texel_m)

    def near(r: float, g: float, b: float) -> Colour:
        return vary(rng, (r, g, b), 0.06)

    size = (_SIDE, _SIDE)
    return Stock(
        oak=sheet(materials.wood(rng, *size, near(176, 132, 84))),
        walnut=sheet(materials.wood(rng, *size, near(104, 70, 46))),
        white=sheet(materials.plaster(rng, *size, near(226, 224, 218))),
        steel=sheet(materials.metal(rng, *size, near(172, 175, 178))),
        black=sheet(materials.metal(rng, *size, near(46, 46, 50))),
        stone=sheet(materials.marble(rng, *size, near(190, 186, 180))),
        cardboard=sheet(materials.metal(rng, *size, near(168, 130, 88))),
        leather=sheet(materials.cloth(rng, *size, near(72, 98, 120))),
        check=sheet(materials.cloth(rng, *size, near(170, 62, 50), near(226, 216, 196))),
        curtain=sheet(materials.cloth(rng, *size, near(150, 142, 104), near(178, 170, 140))),
        clay=sheet(materials.plaster(rng, *size, near(168, 96, 66))),
        leaf=sheet(materials.wood(rng, 300, 300, near(70, 112, 52)), 0.001),
        bedding=sheet(materials.cloth(rng, *size, near(196, 176, 92))),
    )
