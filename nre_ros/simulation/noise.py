"""Random fields and colours that the procedural textures are made of."""

from __future__ import annotations

import cv2
import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue, 0 to 255, as shown on a screen."""


def fractal(
    rng: np.random.Generator,
    height: int,
    width: int,
    cell_px: float,
    octaves: int = 4,
    stretch: float = 1.0,
    persistence: float = 0.55,
) -> np.ndarray:
    """Smooth random field, float32 (height, width), mean about 0 and standard deviation about 1.

    ``cell_px`` is the size of its largest features, ``stretch`` how much longer they are along the rows.
    """
    field: np.ndarray = np.zeros((height, width), np.float32)
    power, weight = 0.0, 1.0
    for octave in range(octaves):
        cell = max(cell_px / 2**octave, 1.0)
        grid = rng.standard_normal((int(height / cell) + 3, int(width / (cell * stretch)) + 3)).astype(np.float32)
        full = (int(grid.shape[1] * cell * stretch) + 1, int(grid.shape[0] * cell) + 1)
        # of the finest grain nobody sees how it is interpolated
        how = cv2.INTER_CUBIC if cell > 4 else cv2.INTER_LINEAR
        field = cv2.scaleAdd(cv2.resize(grid, full, interpolation=how)[:height, :width], weight, field)
        power += 0.5 * weight**2  # interpolation of white noise keeps about half its variance
        weight *= persistence
    return field / power**0.5


def ridged(rng: np.random.Generator, height: int, width: int, cell_px: float, octaves: int = 3) -> np.ndarray:
    """Thin dark veins on white: float32 (height, width), 0 on a vein and 1 away from it."""
    return np.clip(np.abs(fractal(rng, height, width, cell_px, octaves)) * 3, 0, 1)


def paint(colour: Colour, shade: np.ndarray) -> np.ndarray:
    """A colour times a field of brightness (H, W) that is about 1: uint8 (H, W, 3)."""
    positive = np.maximum(shade, 0, dtype=np.float32)
    return cv2.merge([cv2.convertScaleAbs(positive, alpha=c) for c in colour])


def blend(low: Colour, high: Colour, share: np.ndarray) -> np.ndarray:
    """From one colour (share 0) to another (share 1) over a field (H, W): float32 (H, W, 3)."""
    a, b = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return a + (b - a) * np.clip(share, 0, 1).astype(np.float32)[..., None]


def vary(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """A colour near another: brightness changes more than hue does."""
    factors = (1 + amount * rng.standard_normal()) * (1 + 0.4 * amount * rng.standard_normal(3))
    r, g, b = np.clip(np.asarray(colour) * factors, 0, 255)
    return float(r), float(g), float(b)


def vivid(rng: np.random.Generator, value: float = 200.0) -> Colour:
    """A random saturated colour, at most ``value`` bright."""
    hsv = np.array([[[rng.integers(180), rng.integers(90, 220), int(value * rng.uniform(0.6, 1.0))]]], np.uint8)
    r, g, b = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
    return float(r), float(g), float(b)
