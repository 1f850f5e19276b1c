"""How sure a figure of so many queries is: 95 % intervals, and whether two runs differ by more than chance.

Neighbouring frames of a walk resemble each other, so that queries are not quite independent: the true intervals are
somewhat wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Interval = tuple[float, float]
DRAWS = 2000
SEED = 0
_Z95 = 1.959964


def share_interval(hits: int, of: int) -> Interval | None:
    """Wilson's 95 % interval of a share; None of nothing.

    Resampling would say "0 to 0" of a fault that was not met in ten queries; this says "0 to 0.28".
    """
    if not of:
        return None
    p, z2 = hits / of, _Z95**2
    centre = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z95 / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))  # p itself in spite of rounding


def bootstrap_interval(values: np.ndarray, figure: Callable[..., np.ndarray] = np.median) -> Interval | None:
    """95 % interval of ``figure(values, axis=1)`` by resampling values (N,); the same each time; None below two."""
    if len(values) < 2:
        return None
    drawn = values[_draws(len(values))]
    low, high = np.percentile(figure(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def paired_interval(
    old: np.ndarray, new: np.ndarray, figure: Callable[..., np.ndarray], level: float = 99.0
) -> Interval:
    """Of ``figure(new) - figure(old)``, resampling the same queries (N,) of both; NaN draws (no answers) are left out.

    ``(nan, nan)`` where nothing can be drawn.
    """
    drawn = _draws(len(old))
    with np.errstate(invalid="ignore"):
        difference = figure(new[drawn], axis=1) - figure(old[drawn], axis=1)
    difference = difference[np.isfinite(difference)]
    if not len(difference):
        return math.nan, math.nan
    low, high = np.percentile(difference, [(100 - level) / 2, (100 + level) / 2])
    return float(low), float(high)


def _draws(count: int) -> np.ndarray:
    """Indices (DRAWS, count), always the same."""
    return np.random.default_rng(SEED).integers(0, count, (DRAWS, count))
