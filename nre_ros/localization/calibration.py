"""How much support poses have that were found for images of other places: what ``nre_ros calibrate`` measures."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from nre_ros.errors import ConfigError

TAIL = 0.1
"""The share of the images of other places, those that look best, by which the rest of the tail is told."""


@dataclass(frozen=True)
class Calibration:
    """Of ``images`` of other places, each asked of a map of the network with the hash ``network``, a tenth
    (:data:`TAIL`) have more support than ``level``; each ``fall`` beyond there are fewer by a factor of e."""

    network: str
    images: int
    level: float
    fall: float

    def least_support(self, rate: float) -> float:
        """The support that this share of the images of other places reach."""
        return max(self.level + self.fall * math.log(TAIL / rate), 1e-6)

    def remark(self, network: str) -> str:
        """What a user of another network, by the hash of its weights, must know; else empty."""
        if network == self.network:
            return ""
        return (
            f"poses are believed by what was measured with the weights {self.network[:12]}, not {network[:12]}: "
            "false_accept_rate means little; run nre_ros calibrate and name its file by accept.calibration"
        )


SHIPPED = Calibration("bf498f8eae27cd3f", 1051, 0.413, 0.247)
"""Of the package's weights, measured by ``nre_ros calibrate``: photos of 4 collections and images of 9 places, asked of
maps of these places at 640 px, none of which the figures of ``docs/results.md`` are of."""


def load_calibration(path: str) -> Calibration:
    """From a file of ``nre_ros calibrate``; empty: that of the package. Raises ConfigError."""
    if not path:
        return SHIPPED
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        read = Calibration(str(found["network"]), int(found["images"]), float(found["level"]), float(found["fall"]))
    except OSError as error:
        raise ConfigError(f"accept.calibration {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"accept.calibration {path} is no file of nre_ros calibrate: {error!r}") from None
    if not (0 <= read.level < math.inf and 0 < read.fall < math.inf):
        raise ConfigError(f"accept.calibration {path} has level {read.level} and fall {read.fall}, expected above 0")
    return read


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Raises ConfigError where the file cannot be written."""
    try:
        path.write_text(json.dumps(asdict(calibration), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
