"""From answers to images of other places to how often such an image has how much support."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from nre_ros.errors import RecordingError
from nre_ros.localization.calibration import TAIL, Calibration

CONFIDENCE = 0.95
"""That the tail falls no slower than it is said to."""
FEWEST = 200
"""Images of other places; their best tenth is what the tail is told by."""


def fit_tail(supports: Sequence[float], network: str) -> Calibration:
    """An exponential tail through the best tenth of the ``supports`` of images of other places (0: no pose of use).

    The slope is the slowest that these allow (:data:`CONFIDENCE`), so that rates which few images speak of are rather
    too high than too low. Raises RecordingError for too few images.
    """
    if len(supports) < FEWEST:
        raise RecordingError(f"{len(supports)} images of other places are too few to calibrate by, expected {FEWEST}")
    values = np.asarray(supports, float)
    level = float(np.quantile(values, 1 - TAIL))
    excess = values[values > level] - level
    if not excess.size:
        raise RecordingError("the images of other places are all alike; name others")
    slowest = 2 * excess.sum() / chi2.ppf(1 - CONFIDENCE, 2 * excess.size)
    return Calibration(network, len(supports), level, float(slowest))
