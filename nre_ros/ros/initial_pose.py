"""``initialpose``: where a person or another node says that the robot is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped

from nre_ros.errors import NreError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError
from nre_ros.localization.prior import Prior
from nre_ros.ros.conversions import pose_from_message

LEAST_POSITION = 0.1
LEAST_ROTATION_RAD = math.radians(5)
"""Nobody knows a robot's pose better by hand. A covariance of zero means that it was not said."""
UNSAID_POSITION, UNSAID_ROTATION_RAD = 0.5, math.pi / 12
"""What RViz gives: 0.5 m and 15 degrees."""


class InitialPoseError(NreError):
    """The message is refused; says why."""


@dataclass(frozen=True)
class InitialPose:
    """``map_from_base`` with one standard deviation for all rotations and one for all directions: RViz gives a plane's
    alone, and neither the floor's height nor the tilt of the robot is known to it."""

    map_from_base: Pose
    rotation_rad: float
    position: float

    def prior(self, base_from_cam: Pose) -> Prior:
        """Of the camera; the robot's rotation moves it by its distance from the base."""
        lever = float(base_from_cam.translation.norm()) * self.rotation_rad
        return Prior.isotropic(self.map_from_base @ base_from_cam, self.rotation_rad, self.position + lever)


def initial_pose_from_message(message: PoseWithCovarianceStamped, global_frame_id: str) -> InitialPose:
    """Raises InitialPoseError for another frame, NaN, a quaternion that is none, or negative variances."""
    frame_id = message.header.frame_id.lstrip("/")
    if frame_id != global_frame_id:
        raise InitialPoseError(
            f"it is in frame {frame_id!r}, expected {global_frame_id!r}: set RViz's fixed frame to it"
        )
    try:
        map_from_base = pose_from_message(message.pose.pose)
    except TransformError as error:
        raise InitialPoseError(str(error)) from None
    variance = np.diag(np.reshape(message.pose.covariance, (6, 6)))
    if not np.isfinite(message.pose.covariance).all() or (variance < 0).any():
        raise InitialPoseError("its covariance holds NaN, infinity or a negative variance")
    position, rotation = float(variance[:3].max()) ** 0.5, float(variance[3:].max()) ** 0.5
    return InitialPose(
        map_from_base,
        rotation_rad=max(min(rotation, math.pi), LEAST_ROTATION_RAD) if rotation > 0 else UNSAID_ROTATION_RAD,
        position=max(position, LEAST_POSITION) if position > 0 else UNSAID_POSITION,
    )
