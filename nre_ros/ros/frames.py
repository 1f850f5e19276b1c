"""Where the camera sits on the robot, and where odometry says the robot is."""

from __future__ import annotations

from nre_ros.errors import ConfigError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError, TransformReason, pose_from_rigid, rigid_from_xyzw
from nre_ros.ros.transforms import Buffer, lookup_pose


def pose_from_extrinsics(values: tuple[float, ...]) -> Pose | None:
    """The parameter camera_extrinsics (x y z qx qy qz qw) as base_from_camera; None when it is empty.

    Raises ConfigError for any other count than seven, NaN, or a quaternion that is none.
    """
    if not values:
        return None
    try:
        if len(values) != 7:
            raise ConfigError(f"parameter camera_extrinsics has {len(values)} numbers, expected x y z qx qy qz qw")
        return pose_from_rigid(rigid_from_xyzw(values[:3], values[3:]))
    except TransformError as error:
        raise ConfigError(f"parameter camera_extrinsics is refused: {error}") from None


class CameraMount:
    """``base_from_camera``, from the parameter where given, else from TF. Lookups wait: not for a callback."""

    def __init__(self, buffer: Buffer, base_frame: str, extrinsics: tuple[float, ...], timeout_s: float) -> None:
        self._buffer = buffer
        self._base_frame = base_frame
        self._given = pose_from_extrinsics(extrinsics)
        self._timeout_s = timeout_s

    def base_from_camera(self, camera_frame: str, stamp_ns: int) -> Pose:
        """Raises TransformError naming the frames and the parameters that mend it."""
        if self._given is not None:
            return self._given
        if not camera_frame:
            raise TransformError(
                TransformReason.UNKNOWN_FRAME,
                "the image's header.frame_id is empty: set the parameter camera_frame_id or camera_extrinsics",
            )
        try:
            return lookup_pose(self._buffer, self._base_frame, camera_frame, stamp_ns, self._timeout_s)
        except TransformError as error:
            hint = "publish it on /tf_static or set the parameter camera_extrinsics"
            raise TransformError(error.reason, f"{error}; {hint}") from None
