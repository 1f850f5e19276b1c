"""What every recording, the simulator and the live node produce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nre_ros.geometry import Camera, Pose


@dataclass(frozen=True)
class Frame:
    """One camera image with all that is known of it.

    ``image_rgb`` uint8 (H, W, 3). ``depth_m`` float32 (H, W), metres along z, registered to the image, NaN or 0
    where unknown. ``map_from_cam`` is float64, the camera's optical frame in the frame of the recording's poses.
    """

    stamp_ns: int
    image_rgb: np.ndarray
    camera: Camera
    map_from_cam: Pose | None = None
    depth_m: np.ndarray | None = field(default=None, repr=False)
    name: str = ""


class Recording(Protocol):
    """A finished recording on disk. ``frames`` may be called again and starts afresh.

    ``split`` selects the frames of a role ("map", "query") where the recording defines roles; a
    RecordingError says when it does not. Frames that cannot be decoded are left out and told, a sentence
    each, in ``problems``.
    """

    name: str
    unit: str
    problems: list[str]
    roles: dict[int, str]
    """Role by stamp_ns; empty where the recording defines none."""

    def frames(self, split: str | None = None) -> Iterator[Frame]: ...

    def count(self, split: str | None = None) -> int:
        """How many frames ``frames`` would at most yield; cheap, for progress bars."""
        ...

    def require_poses(self) -> None:
        """Raises a RecordingError that says what is missing when no frame can have a pose; else frames may lack one."""
        ...
