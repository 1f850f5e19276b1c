"""The one place that chooses between tf2_ros and our stand-in, and asks either for poses."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.time import Time

from nre_ros.geometry import Pose
from nre_ros.geometry.transform_tree import TransformError, TransformReason
from nre_ros.ros import tf_stand_in
from nre_ros.ros.conversions import pose_from_transform

try:
    from tf2_ros import (
        Buffer,
        ConnectivityException,
        ExtrapolationException,
        LookupException,
        TransformBroadcaster,
        TransformException,
        TransformListener,
    )
except ImportError:
    from nre_ros.ros.tf_stand_in import (
        Buffer,
        ConnectivityException,
        ExtrapolationException,
        LookupException,
        TransformBroadcaster,
        TransformException,
        TransformListener,
    )

__all__ = [
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "LookupException",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
    "lookup_pose",
]


def lookup_pose(buffer: Buffer | tf_stand_in.Buffer, target: str, source: str, stamp_ns: int, timeout_s: float) -> Pose:
    """``target_from_source`` at a stamp, float64; waits up to the timeout, so never to be called in a callback.

    Raises TransformError naming both frames and the reason.
    """
    if stamp_ns < 0:
        raise TransformError(TransformReason.INVALID, f"the stamp {stamp_ns * 1e-9:.3f} s lies before all time")
    try:
        timeout = Duration(nanoseconds=round(timeout_s * 1e9))
        # frames of parameters: tf2 takes a leading slash in messages, but not here
        frames = target.removeprefix("/"), source.removeprefix("/")
        return pose_from_transform(buffer.lookup_transform(*frames, Time(nanoseconds=stamp_ns), timeout))
    except (TransformException, tf_stand_in.TransformException) as error:
        raise TransformError(
            _reason(error), f"no transform {target} <- {source} at the image's stamp: {error}"
        ) from None


def _reason(error: Exception) -> TransformReason:
    """Of an exception of tf2_ros, or of the stand-in, which the map builder uses beside it."""
    if isinstance(error, (LookupException, tf_stand_in.LookupException)):
        return TransformReason.UNKNOWN_FRAME
    if isinstance(error, (ConnectivityException, tf_stand_in.ConnectivityException)):
        return TransformReason.NOT_CONNECTED
    return TransformReason.EXTRAPOLATION_FUTURE
