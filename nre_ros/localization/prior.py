"""What is known of the camera's pose before an image is asked: from odometry, or from a person."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.geometry import Pose
from nre_ros.geometry.pose import adjoint

BOUND_SIGMAS = 4.0
"""A pose further than this from where it was expected contradicts the expectation: for a normal distribution of six
dimensions, one of 70 true ones would."""


@dataclass(frozen=True)
class Prior:
    """Where the camera is expected: ``map_from_cam`` float64 and the covariance (6, 6) float64 of the twist x in
    ``map_from_cam @ exp(x)``, rotation (rad) first, then translation (map unit)."""

    map_from_cam: Pose
    covariance: Tensor

    @staticmethod
    def isotropic(map_from_cam: Pose, rotation_rad: float, translation: float) -> Prior:
        """Equally uncertain about every axis: standard deviations in radians and the map's unit."""
        deviation = torch.tensor([rotation_rad] * 3 + [translation] * 3, dtype=torch.float64)
        return Prior(map_from_cam, torch.diag(deviation.square()))

    @property
    def rotation_rad(self) -> float:
        """Largest standard deviation of the rotation about any axis."""
        return _largest(self.covariance[:3, :3])

    @property
    def translation(self) -> float:
        """Largest standard deviation of the position in any direction, map unit."""
        return _largest(self.covariance[3:, 3:])

    def at_least(self, rotation_rad: float, translation: float) -> Prior:
        """Less sure: these deviations are added where the present ones are smaller."""
        more = Prior.isotropic(self.map_from_cam, rotation_rad, translation).covariance
        add = torch.cat([(self.rotation_rad < rotation_rad) * more[:3], (self.translation < translation) * more[3:]])
        return Prior(self.map_from_cam, self.covariance + add)

    def moved(self, before_from_now: Pose, rotation_rad: float, translation: float) -> Prior:
        """After a motion of the camera that is known up to independent deviations about every axis."""
        turn = adjoint(before_from_now.inverse())
        step = Prior.isotropic(self.map_from_cam, rotation_rad, translation).covariance
        return Prior(self.map_from_cam @ before_from_now, turn @ self.covariance @ turn.mT + step)

    def sigmas(self, map_from_cam: Pose, covariance: Tensor | None = None) -> float:
        """How many standard deviations a pose lies off, its own ``covariance`` (as here) taken into account."""
        off = (self.map_from_cam.inverse() @ map_from_cam).log()
        total = self.covariance if covariance is None else self.covariance + covariance.to(self.covariance)
        solved, failed = torch.linalg.solve_ex(total, off)
        return math.sqrt(max(float(off @ solved), 0.0)) if not int(failed) else math.inf

    def holds(self, map_from_cam: Pose) -> bool:
        """Whether a pose lies within :data:`BOUND_SIGMAS` in position and in rotation, each by itself."""
        off = (self.map_from_cam.inverse() @ map_from_cam).log()
        near = float(off[3:].norm()) <= BOUND_SIGMAS * self.translation
        return near and float(off[:3].norm()) <= BOUND_SIGMAS * self.rotation_rad


def _largest(covariance: Tensor) -> float:
    return math.sqrt(max(float(torch.linalg.eigvalsh(covariance)[-1]), 0.0))
