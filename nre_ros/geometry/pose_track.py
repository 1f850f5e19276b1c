"""Rigid motion over time in plain floats: fast enough for transforms that arrive a thousand times a second."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from enum import Enum

import torch

from nre_ros.errors import NreError
from nre_ros.geometry.pose import Pose

Rigid = tuple[float, float, float, float, float, float, float]
"""``b_from_a`` as x y z qx qy qz qw, the quaternion of unit length."""

IDENTITY: Rigid = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
UNIT_TOLERANCE = 1e-2
"""How far the length of a quaternion may be from 1, as in tf2."""


class TransformReason(Enum):
    """Why a transform is refused or cannot be had."""

    INVALID = "invalid transform"
    UNKNOWN_FRAME = "unknown frame"
    NOT_CONNECTED = "frames not connected"
    EXTRAPOLATION_FUTURE = "extrapolation into the future"
    EXTRAPOLATION_PAST = "extrapolation into the past"
    GAP = "gap in the data"


class TransformError(NreError):
    """A transform is refused or cannot be had; ``reason`` says why for code, the text for people."""

    def __init__(self, reason: TransformReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def rigid_from_xyzw(xyz: Sequence[float], quat_xyzw: Sequence[float]) -> Rigid:
    """Checked and normalised; raises TransformError (INVALID) for NaN, infinity, quaternions far from unit length."""
    x, y, z = (float(v) for v in xyz)
    qx, qy, qz, qw = (float(v) for v in quat_xyzw)
    if not all(map(math.isfinite, (x, y, z, qx, qy, qz, qw))):
        raise TransformError(
            TransformReason.INVALID, f"translation {(x, y, z)}, quaternion {(qx, qy, qz, qw)} holds NaN or infinity"
        )
    length = math.sqrt(qx * qx + qy * qy + qz * qz + qw * qw)
    if abs(length - 1) > UNIT_TOLERANCE:
        raise TransformError(
            TransformReason.INVALID, f"quaternion x y z w {(qx, qy, qz, qw)} has length {length:.4g}, expected 1"
        )
    return (x, y, z, qx / length, qy / length, qz / length, qw / length)


def rigid_from_pose(pose: Pose) -> Rigid:
    """From an unbatched Pose; raises TransformError (INVALID) when it is not finite or its rotation is none."""
    x, y, z = pose.translation.tolist()
    (a, b, c), (d, e, f), (g, h, i) = pose.rotation.tolist()
    candidates = (
        (1 + a - e - i, d + b, g + c, h - f),
        (d + b, 1 - a + e - i, h + f, c - g),
        (g + c, h + f, 1 - a - e + i, d - b),
        (h - f, c - g, d - b, 1 + a + e + i),
    )
    k = max(range(4), key=lambda n: candidates[n][n])
    scale = 2 * math.sqrt(candidates[k][k]) if candidates[k][k] > 0 else math.nan
    return rigid_from_xyzw((x, y, z), [v / scale for v in candidates[k]])


def pose_from_rigid(rigid: Rigid) -> Pose:
    """Unbatched float64 Pose."""
    tx, ty, tz, x, y, z, w = rigid
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return Pose(torch.tensor(rotation, dtype=torch.float64), torch.tensor([tx, ty, tz], dtype=torch.float64))


def compose(c_from_b: Rigid, b_from_a: Rigid) -> Rigid:
    """``c_from_a``."""
    tx, ty, tz, x, y, z, w = c_from_b
    px, py, pz = _rotate(c_from_b, b_from_a[0], b_from_a[1], b_from_a[2])
    u, v, s, r = b_from_a[3:]
    return (
        tx + px,
        ty + py,
        tz + pz,
        w * u + x * r + y * s - z * v,
        w * v - x * s + y * r + z * u,
        w * s + x * v - y * u + z * r,
        w * r - x * u - y * v - z * s,
    )


def invert(b_from_a: Rigid) -> Rigid:
    """``a_from_b``."""
    x, y, z, qx, qy, qz, qw = b_from_a
    turned_back: Rigid = (0.0, 0.0, 0.0, -qx, -qy, -qz, qw)
    px, py, pz = _rotate(turned_back, x, y, z)
    return (-px, -py, -pz, -qx, -qy, -qz, qw)


def interpolate(first: Rigid, second: Rigid, share: float) -> Rigid:
    """Between two transforms, ``share`` 0 to 1: translation on the line, rotation along the shorter arc (slerp)."""
    dot = sum(a * b for a, b in zip(first[3:], second[3:], strict=True))
    sign = -1.0 if dot < 0 else 1.0
    angle = math.acos(min(1.0, abs(dot)))
    if angle < 1e-6:  # slerp's quotient loses its digits there, and the chord equals the arc
        near, far = 1 - share, share * sign
    else:
        near, far = math.sin((1 - share) * angle) / math.sin(angle), sign * math.sin(share * angle) / math.sin(angle)
    q = [near * a + far * b for a, b in zip(first[3:], second[3:], strict=True)]
    length = math.sqrt(sum(v * v for v in q))
    x, y, z = ((1 - share) * a + share * b for a, b in zip(first[:3], second[:3], strict=True))
    return (x, y, z, q[0] / length, q[1] / length, q[2] / length, q[3] / length)


def _rotate(rigid: Rigid, px: float, py: float, pz: float) -> tuple[float, float, float]:
    _, _, _, x, y, z, w = rigid
    ux, uy, uz = 2 * (y * pz - z * py), 2 * (z * px - x * pz), 2 * (x * py - y * px)
    return (
        px + w * ux + y * uz - z * uy,
        py + w * uy + z * ux - x * uz,
        pz + w * uz + x * uy - y * ux,
    )


class PoseTrack:
    """Samples of one moving transform, in order of their stamps.

    Samples older than ``cache_ns`` before the newest are forgotten (None: all are kept). Two samples that lie
    ``max_gap_ns`` or more apart are not interpolated (None: always). ``name`` stands in the errors.
    """

    def __init__(self, name: str, *, cache_ns: int | None = None, max_gap_ns: int | None = None) -> None:
        self.name = name
        self._cache_ns, self._max_gap_ns = cache_ns, max_gap_ns
        self._stamps_ns: list[int] = []
        self._values: list[Rigid] = []

    def __len__(self) -> int:
        return len(self._stamps_ns)

    @property
    def stamps_ns(self) -> Sequence[int]:
        """Ascending."""
        return self._stamps_ns

    @property
    def latest_ns(self) -> int:
        return self._stamps_ns[-1]

    def add(self, stamp_ns: int, value: Rigid) -> bool:
        """Keep a sample, in place of one of the same stamp; False when it is older than the cache reaches."""
        stamps, values = self._stamps_ns, self._values
        if not stamps or stamp_ns > stamps[-1]:
            stamps.append(stamp_ns)
            values.append(value)
            self._forget_old()
            return True
        if self._cache_ns is not None and stamp_ns < stamps[-1] - self._cache_ns:
            return False
        index = bisect.bisect_left(stamps, stamp_ns)
        if stamps[index] == stamp_ns:
            values[index] = value
        else:
            stamps.insert(index, stamp_ns)
            values.insert(index, value)
        return True

    def at(self, stamp_ns: int) -> Rigid:
        """The sample of that stamp, or between its neighbours; raises TransformError rather than extrapolate."""
        stamps = self._stamps_ns
        index = bisect.bisect_left(stamps, stamp_ns)
        if index < len(stamps) and stamps[index] == stamp_ns:
            return self._values[index]
        if index == 0 or index == len(stamps):
            raise self._outside(stamp_ns)
        before, after = stamps[index - 1], stamps[index]
        if self._max_gap_ns is not None and after - before >= self._max_gap_ns:
            raise TransformError(
                TransformReason.GAP,
                f"{self.name} has no sample within the {seconds(after - before)} s around {seconds(stamp_ns)} s, "
                f"expected gaps below {seconds(self._max_gap_ns)} s",
            )
        return interpolate(self._values[index - 1], self._values[index], (stamp_ns - before) / (after - before))

    def at_or_near(self, stamp_ns: int, within_ns: int) -> Rigid:
        """As :meth:`at`; where that is impossible, the nearest sample that is not further away than ``within_ns``."""
        try:
            return self.at(stamp_ns)
        except TransformError:
            index = nearest_index(self._stamps_ns, stamp_ns, within_ns)
            if index is None:
                raise
            return self._values[index]

    def _forget_old(self) -> None:
        if self._cache_ns is not None and self._stamps_ns[0] < self._stamps_ns[-1] - self._cache_ns:
            keep = bisect.bisect_left(self._stamps_ns, self._stamps_ns[-1] - self._cache_ns)
            del self._stamps_ns[:keep], self._values[:keep]

    def _outside(self, stamp_ns: int) -> TransformError:
        if not self._stamps_ns:
            return TransformError(TransformReason.UNKNOWN_FRAME, f"{self.name} has no samples")
        if stamp_ns > self._stamps_ns[-1]:
            latest = self._stamps_ns[-1]
            return TransformError(
                TransformReason.EXTRAPOLATION_FUTURE,
                f"{self.name} is asked for at {seconds(stamp_ns)} s, but its latest sample is of {seconds(latest)} s, "
                f"{seconds(stamp_ns - latest)} s earlier: extrapolation into the future",
            )
        earliest = self._stamps_ns[0]
        return TransformError(
            TransformReason.EXTRAPOLATION_PAST,
            f"{self.name} is asked for at {seconds(stamp_ns)} s, but its earliest sample is of {seconds(earliest)} s, "
            f"{seconds(earliest - stamp_ns)} s later: extrapolation into the past",
        )


def nearest_index(stamps_ns: Sequence[int], stamp_ns: int, within_ns: int) -> int | None:
    """Index of the nearest of ascending stamps, None when none is within ``within_ns`` (inclusive)."""
    right = bisect.bisect_left(stamps_ns, stamp_ns)
    around = [i for i in (right - 1, right) if 0 <= i < len(stamps_ns)]
    best = min(around, key=lambda i: abs(stamps_ns[i] - stamp_ns), default=None)
    return best if best is not None and abs(stamps_ns[best] - stamp_ns) <= within_ns else None


def seconds(stamp_ns: int) -> str:
    """A stamp as decimal seconds with all its digits, such as 1305031102.175304000."""
    sign, size = ("-", -stamp_ns) if stamp_ns < 0 else ("", stamp_ns)
    return f"{sign}{size // 10**9}.{size % 10**9:09d}"
