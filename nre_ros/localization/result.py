"""What one query image came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch

from nre_ros.geometry import Pose


class Status(Enum):
    """``ACCEPTED`` is the only status whose pose may be published as an answer."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """A pose was found but is not believed; ``reason`` says why."""
    NO_POSE = "no_pose"
    """Nothing in the map explains the image."""


class Search(Enum):
    """How far was looked for the pose that an answer is about."""

    GLOBAL = "global"
    WITHIN = "within"
    """The bounds of a prior."""
    TRACK = "track"
    """From an expected pose on."""


@dataclass(frozen=True)
class PointReport:
    """How each landmark that was asked about fared: for pictures and for judging.

    ``xyz_map`` (N, 3) float32; ``uv_px`` (N, 2) its projection by the final pose in pixels of the query image, NaN
    when behind the camera; ``loss`` (N,) the NRE there as a share of its ceiling ln|Omega| (1: not explained at all).
    """

    xyz_map: np.ndarray
    uv_px: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Localization:
    """The answer to one query.

    ``map_from_cam`` float64, None unless a pose was found (also set on REJECTED, for evaluation; never to be
    published then). ``covariance`` (6, 6) float64 of the twist x in ``map_from_cam @ exp(x)``: rotation (rad) first,
    then translation (map unit), both in the camera's optical frame. ``score`` 0 to 1, at least 0.5
    when accepted; ``support`` as in :mod:`nre_ros.localization.acceptance`. ``hypotheses`` are further poses, best
    first, without the answer itself, and ``rivalry`` how much each explains, as a share of what the answer does;
    ``ambiguous`` when one of these is all that speaks against the answer. ``timings_ms`` by stage; ``keyframes`` the
    ids of those asked about, best first.
    """

    status: Status
    reason: str
    score: float = 0.0
    support: float = 0.0
    map_from_cam: Pose | None = None
    covariance: torch.Tensor | None = None
    hypotheses: tuple[Pose, ...] = ()
    rivalry: tuple[float, ...] = ()
    ambiguous: bool = False
    search: Search = Search.GLOBAL
    points: PointReport | None = field(default=None, repr=False)
    keyframes: tuple[int, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.status is Status.ACCEPTED
