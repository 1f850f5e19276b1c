"""Smooth walks through the house: where the robot's base is at any time of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from nre_ros.geometry import Pose

BASE_HEIGHT_M = 0.3
"""A walking robot: its base is its body, not a point on the floor."""

# x, y (m), heading (deg, anticlockwise from east), and how far a second walk may stray from there (m)
_STATIONS = np.array(
    [
        (1.0, 3.9, -70, 0.38),
        (1.8, 3.0, -110, 0.45),
        (3.0, 2.9, -150, 0.45),
        (3.9, 2.6, -80, 0.45),
        (4.6, 1.85, -5, 0.20),
        (5.45, 1.75, 10, 0.12),
        (6.5, 1.8, 40, 0.45),
        (7.4, 2.0, 0, 0.45),
        (7.9, 2.6, 60, 0.28),
        (8.2, 3.4, 120, 0.20),
        (8.4, 5.05, 95, 0.10),
        (8.2, 6.0, 75, 0.38),
        (7.6, 6.6, 130, 0.38),
        (6.6, 6.7, 185, 0.45),
        (5.6, 6.6, 225, 0.45),
        (4.8, 6.8, 170, 0.45),
        (4.1, 6.3, 200, 0.38),
        (4.15, 5.05, 255, 0.10),
        (3.8, 4.1, 215, 0.28),
        (3.0, 3.5, 150, 0.38),
        (2.4, 3.3, 80, 0.38),
        (2.8, 3.0, 10, 0.38),
    ]
)
_STRAY_HEADING_DEG = 16.0
_PACE_M_PER_DEG = 0.012
"""Turning takes time as walking does: a degree as much as so many metres."""


@dataclass(frozen=True)
class Trajectory:
    """A walk of ``duration_s`` seconds: splines over time, and the sway of the gait with phases of its own."""

    duration_s: float
    raised_m: float
    _course: CubicSpline
    _phases: np.ndarray

    def map_from_base(self, time_s: float) -> Pose:
        """Float64 pose of the base (x forward, y left, z up) at a time from 0 to ``duration_s``."""
        x, y, heading = self._course(time_s)
        bob, sway, roll, pitch = np.sin(2 * np.pi * np.array([1.7, 0.85, 0.6, 0.8]) * time_s + self._phases)
        z = BASE_HEIGHT_M + self.raised_m + 0.012 * bob
        side = 0.015 * sway * np.array([-np.sin(heading), np.cos(heading)])
        turn = torch.tensor([[0, 0, heading], [0, np.deg2rad(1.0) * pitch, 0], [np.deg2rad(1.2) * roll, 0, 0]])
        nowhere = torch.zeros(3, 3, dtype=torch.float64)
        yaw, pitch_, roll_ = Pose.exp(torch.cat([turn, nowhere], 1)).rotation
        return Pose(yaw @ pitch_ @ roll_, torch.tensor([x + side[0], y + side[1], z], dtype=torch.float64))


def mapping_walk(duration_s: float, seed: int) -> Trajectory:
    """Round through all rooms."""
    return _walk(_STATIONS[:, :3], duration_s, 0.0, np.random.default_rng([seed, 1]))


def query_walk(duration_s: float, seed: int) -> Trajectory:
    """Round through all rooms again, elsewhere, with other headings and from higher up."""
    rng = np.random.default_rng([seed, 2])
    angle, share = rng.uniform(0, 2 * np.pi, len(_STATIONS)), rng.uniform(0.5, 1.0, len(_STATIONS))
    strayed = _STATIONS[:, :3].copy()
    strayed[:, :2] += (share * _STATIONS[:, 3])[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    strayed[:, 2] += rng.uniform(-_STRAY_HEADING_DEG, _STRAY_HEADING_DEG, len(_STATIONS))
    return _walk(strayed, duration_s, 0.1, rng)


def _walk(stations: np.ndarray, duration_s: float, raised_m: float, rng: np.random.Generator) -> Trajectory:
    step = np.hypot(*np.diff(stations[:, :2], axis=0).T) + _PACE_M_PER_DEG * np.abs(np.diff(stations[:, 2]))
    times = np.concatenate([[0], np.cumsum(step)]) / step.sum() * duration_s
    course = CubicSpline(times, np.column_stack([stations[:, :2], np.deg2rad(stations[:, 2])]), bc_type="clamped")
    return Trajectory(duration_s, raised_m, course, rng.uniform(0, 2 * np.pi, 4))
