"""Sheets of material (wood, brick, cloth...) that surfaces are cut from. All are uint8 RGB images.

Sizes are in texels; what a texel measures in the world is decided where the sheet is used (``Material``).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nre_ros.simulation.noise import Colour, blend, fractal, paint, ridged, vary


@dataclass(frozen=True)
class Material:
    """A sheet (H, W, 3) and the size of its texels in metres."""

    sheet: np.ndarray
    texel_m: float

    def cut(self, rng: np.random.Generator, width_m: float, height_m: float, turned: bool = False) -> np.ndarray:
        """A random piece of the sheet of a given size, mirrored at its edges where the sheet is too small.

        ``turned`` runs the grain upwards instead of across.
        """
        sheet = np.swapaxes(self.sheet, 0, 1) if turned else self.sheet
        height, width = max(round(height_m / self.texel_m), 2), max(round(width_m / self.texel_m), 2)
        rows, cols = _piece(rng, height, sheet.shape[0]), _piece(rng, width, sheet.shape[1])
        return sheet[rows][:, cols]


def _piece(rng: np.random.Generator, length: int, size: int) -> slice | np.ndarray:
    """A random stretch of a sheet that is ``size`` long, folded back at its ends when it is longer."""
    if length <= size:
        start = int(rng.integers(size - length + 1))
        return slice(start, start + length)
    folded = (rng.integers(size) + np.arange(length)) % (2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def plaster(rng: np.random.Generator, height: int, width: int, colour: Colour) -> np.ndarray:
    """A painted wall: almost blank, with roller grain, faint stains and scuffs."""
    shade = 1 + 0.02 * fractal(rng, height, width, 250, 3) + 0.015 * fractal(rng, height, width, 5, 2)
    stains = fractal(rng, height, width, 90, 4)
    shade -= 0.05 * np.clip(stains - 1.4, 0, 1)
    scuffs = np.ones((height, width), np.float32)
    for _ in range(height * width // 60000):
        x, y = int(rng.integers(width)), int(height * (1 - 0.5 * rng.random() ** 2))
        dx, dy = rng.normal(0, 25), rng.normal(0, 8)
        cv2.line(scuffs, (x, y), (int(x + dx), int(y + dy)), rng.uniform(0.75, 0.95), 1, cv2.LINE_AA)
    return paint(colour, shade * cv2.GaussianBlur(scuffs, (0, 0), 0.8))


def wallpaper(rng: np.random.Generator, height: int, width: int, ground: Colour, print_: Colour) -> np.ndarray:
    """A mirrored ornament, repeated over the wall and faded unevenly."""
    quarter = fractal(rng, 60, 45, 16, 2)
    half = np.concatenate([quarter, quarter[:, ::-1]], 1)
    tile = np.clip(4 * (np.concatenate([half, half[::-1]], 0) - 0.2) + 0.5, 0, 1)
    pattern = np.tile(tile, (height // tile.shape[0] + 1, width // tile.shape[1] + 1))[:height, :width]
    fade = 0.75 + 0.2 * fractal(rng, height, width, 200, 3)
    colour = blend(ground, print_, pattern * fade)
    return np.clip(colour * (1 + 0.02 * fractal(rng, height, width, 3, 1))[..., None], 0, 255).astype(np.uint8)


def bricks(rng: np.random.Generator, height: int, width: int, colour: Colour, joint: Colour) -> np.ndarray:
    """Running bond with a tone, chips and stains of its own for every brick."""
    image = paint(joint, 1 + 0.08 * fractal(rng, height, width, 6, 3))
    grain = 1 + 0.1 * fractal(rng, height, width, 14, 4)
    brick_h, brick_w, gap = 22, 66, 3
    for row in range(height // brick_h + 1):
        for col in range(-1, width // brick_w + 1):
            x, y = col * brick_w + (row % 2) * brick_w // 2, row * brick_h
            jitter = rng.integers(-1, 2, 4)
            x0, x1 = max(x + gap + jitter[0], 0), min(x + brick_w + jitter[1], width)
            y0, y1 = max(y + gap + jitter[2], 0), min(y + brick_h + jitter[3], height)
            if x1 > x0 and y1 > y0:
                image[y0:y1, x0:x1] = paint(vary(rng, colour, 0.16), grain[y0:y1, x0:x1])
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def tiles(
    rng: np.random.Generator, height: int, width: int, colour: Colour, tile_px: int, variation: float = 0.06
) -> np.ndarray:
    """Square tiles with grout; here and there one with a printed star."""
    image = paint((120, 115, 108), 1 + 0.1 * fractal(rng, height, width, 5, 2))
    glaze = 1 + 0.03 * fractal(rng, height, width, tile_px * 0.7, 4)
    for y in range(0, height, tile_px):
        for x in range(0, width, tile_px):
            inside = image[y + 2 : y + tile_px, x + 2 : x + tile_px]
            if inside.size == 0:
                continue
            piece = glaze[y + 2 : y + tile_px, x + 2 : x + tile_px] * (1 + variation * rng.standard_normal())
            inside[:] = paint(vary(rng, colour, variation / 2), piece)
            if rng.random() < 0.06 and min(inside.shape[:2]) > tile_px * 0.8:
                _star(inside, rng)
    return image


def _star(tile: np.ndarray, rng: np.random.Generator) -> None:
    side, petals = min(tile.shape[:2]), int(rng.integers(3, 7))
    angles = np.arange(2 * petals) * np.pi / petals + rng.random()
    radius = side * np.where(np.arange(2 * petals) % 2, 0.18, 0.42)
    points = np.stack([side / 2 + radius * np.cos(angles), side / 2 + radius * np.sin(angles)], -1)
    part = tile.copy()
    cv2.fillPoly(part, [points.round().astype(np.int32)], (60, 80, int(rng.integers(90, 160))), cv2.LINE_AA)
    tile[:] = part


def wood(rng: np.random.Generator, height: int, width: int, colour: Colour) -> np.ndarray:
    """Grain along the rows, with growth rings, fibres and a few knots."""
    y = np.arange(height, dtype=np.float32)[:, None]
    warp = 14 * fractal(rng, height, width, 120, 3, stretch=5)
    for _ in range(max(height * width // 150000, 1)):
        kx, ky = rng.uniform(0, width), rng.uniform(0, height)
        x = np.arange(width, dtype=np.float32)[None]
        warp += 40 * np.exp(-(((x - kx) / 45) ** 2) - ((y - ky) / 16) ** 2)
    rings = np.sin((y + warp) * 2 * np.pi / rng.uniform(14, 22))
    fibres = fractal(rng, height, width, 3, 2, stretch=30)
    tone = fractal(rng, height, width, 200, 3, stretch=3)
    return paint(colour, 1 + 0.1 * rings + 0.06 * fibres + 0.06 * tone)


def planks(rng: np.random.Generator, height: int, width: int, colour: Colour, plank_px: int) -> np.ndarray:
    """A floor of boards with staggered butt joints."""
    image = np.empty((height, width, 3), np.uint8)
    sheet = wood(rng, 600, 1800, colour)
    for y in range(0, height, plank_px):
        x = -int(rng.integers(400))
        while x < width:
            length = int(rng.integers(280, 520))
            x0, x1, y1 = max(x, 0), min(x + length, width), min(y + plank_px, height)
            if x1 > x0:
                r, c = rng.integers(600 - plank_px), rng.integers(1800 - length)
                board = sheet[r : r + y1 - y, c : c + x1 - x0] * rng.normal(1, 0.1)
                board[:2] *= 0.45
                board[:, :2] *= 0.45
                image[y:y1, x0:x1] = np.clip(board, 0, 255)
            x += length
    return image


def cloth(
    rng: np.random.Generator, height: int, width: int, colour: Colour, second: Colour | None = None
) -> np.ndarray:
    """A weave with soft folds; two colours make checks."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    weave = 0.04 * (np.sin(x * 2.1) + np.sin(y * 2.1)) + 0.05 * fractal(rng, height, width, 2, 1)
    folds = 0.09 * fractal(rng, height, width, 130, 3)
    if second is None:
        return paint(colour, 1 + weave + folds)
    period = rng.uniform(30, 60)
    checks = 0.5 * ((np.sin(x * 2 * np.pi / period) > 0.3).astype(np.float32) + (np.sin(y * 2 * np.pi / period) > 0.3))
    return np.clip(blend(colour, second, checks) * (1 + weave + folds)[..., None], 0, 255).astype(np.uint8)


def marble(rng: np.random.Generator, height: int, width: int, colour: Colour) -> np.ndarray:
    """Stone with clouds and dark veins."""
    veins = ridged(rng, height, width, 180, 5)
    return paint(colour, 0.65 + 0.35 * veins**0.5 + 0.05 * fractal(rng, height, width, 60, 5))


def metal(rng: np.random.Generator, height: int, width: int, colour: Colour) -> np.ndarray:
    """Brushed or lacquered sheet with scratches and smears."""
    brushed = fractal(rng, height, width, 2, 1, stretch=40)
    return paint(colour, 1 + 0.03 * brushed + 0.04 * fractal(rng, height, width, 150, 4))


def carpet(rng: np.random.Generator, height: int, width: int, colours: list[Colour]) -> np.ndarray:
    """An oriental rug: nested borders around a mirrored field."""
    half_h, half_w = (height + 1) // 2, (width + 1) // 2
    y, x = np.mgrid[:half_h, :half_w].astype(np.float32)
    inset = np.minimum(x, y)
    field = fractal(rng, half_h, half_w, 70, 3)
    index = (np.digitize(field, [-0.9, -0.2, 0.5, 1.1]) + 1) % len(colours)
    zigzag = (np.sin((x + y) * 2 * np.pi / 24) * np.sin((x - y) * 2 * np.pi / 24) > 0).astype(np.int64)
    for number, (start, stop) in enumerate(((0, 8), (8, 34), (34, 42), (42, 60), (60, 66))):
        band = (inset >= start) & (inset < stop)
        index = np.where(band, (number + zigzag * (number % 2)) % len(colours), index)
    quarter = np.asarray(colours, np.float32)[index]
    rug = np.concatenate([quarter, quarter[:, ::-1]], 1)
    rug = np.concatenate([rug, rug[::-1]], 0)[:height, :width]
    pile = 1 + 0.12 * fractal(rng, height, width, 2, 1) + 0.08 * fractal(rng, height, width, 80, 3)
    return np.clip(rug * pile[..., None], 0, 255).astype(np.uint8)
