"""What a real camera makes of light: exposure, noise, a response curve, eight bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.simulation.noise import fractal

_MIDDLE_GREY = 0.2
_FULL_WELL = 9000.0
"""Photons of a white pixel; their square root is the shot noise."""

_READ_NOISE = 0.0015
_COMPENSATION = 0.75
"""Share, in the exponent, by which metering makes up for dark and bright views."""


@dataclass(frozen=True)
class Exposure:
    """How a frame is taken: ``shutter_s`` open time, ``stops`` brighter (+) or darker, ``gamma`` of the response.

    ``grain`` multiplies the noise, as a higher gain does.
    """

    shutter_s: float = 0.0
    stops: float = 0.0
    gamma: float = 1.0
    grain: float = 1.0


def develop(radiance: np.ndarray, exposure: Exposure, rng: np.random.Generator) -> np.ndarray:
    """From linear light, float32 (H, W, 3), to the camera's image, uint8 (H, W, 3)."""
    metered = (_MIDDLE_GREY / float(np.median(radiance))) ** _COMPENSATION
    signal = radiance * np.float32(metered * 2**exposure.stops)
    deviation = np.float32(exposure.grain) * np.sqrt(signal / _FULL_WELL + _READ_NOISE**2)
    noisy = signal + deviation * rng.standard_normal(signal.shape, np.float32)
    return (np.clip(noisy, 0, 1) ** np.float32(0.5 * exposure.gamma) * 255 + 0.5).astype(np.uint8)


def drift(rng: np.random.Generator, count: int, per_cycle: int) -> np.ndarray:
    """A slow random change over frames: (count,), about -1 to 1."""
    return np.clip(fractal(rng, 1, max(count, 2), per_cycle, 2)[0, :count] / 1.5, -1, 1)
