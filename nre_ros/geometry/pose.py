"""Rigid transforms as matrices, with the SE(3) exponential."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def hat(w: Tensor) -> Tensor:
    """Skew matrices (..., 3, 3) with ``hat(w) @ x == cross(w, x)``, from vectors (..., 3)."""
    x, y, z = w.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def _exp_coefficients(theta2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sin(t)/t, (1-cos t)/t^2 and (t-sin t)/t^3; Taylor series near zero, safe for gradients."""
    small = theta2 < 1e-6
    safe = torch.where(small, torch.ones_like(theta2), theta2)
    theta = safe.sqrt()
    a = torch.where(small, 1 - theta2 / 6, theta.sin() / theta)
    b = torch.where(small, 0.5 - theta2 / 24, (1 - theta.cos()) / safe)
    c = torch.where(small, 1 / 6 - theta2 / 120, (theta - theta.sin()) / (safe * theta))
    return a, b, c


@dataclass(frozen=True)
class Pose:
    """Rigid transform ``b_from_a``: maps points given in frame a to frame b.

    ``rotation`` (..., 3, 3) and ``translation`` (..., 3), any floating dtype and device, any
    leading batch shape. Neighbours cancel: ``c_from_a = c_from_b @ b_from_a``.
    """

    rotation: Tensor
    translation: Tensor

    @staticmethod
    def identity(*, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Pose:
        return Pose(torch.eye(3, dtype=dtype, device=device), torch.zeros(3, dtype=dtype, device=device))

    @staticmethod
    def from_matrix(matrix: Tensor) -> Pose:
        """From homogeneous (..., 4, 4)."""
        return Pose(matrix[..., :3, :3], matrix[..., :3, 3])

    @staticmethod
    def from_quat_xyzw(translation: Tensor, quat_xyzw: Tensor) -> Pose:
        """From a translation (..., 3) and a quaternion (..., 4) in the order x, y, z, w (normalised here)."""
        q = quat_xyzw / quat_xyzw.norm(dim=-1, keepdim=True)
        x, y, z, w = q.unbind(-1)
        rows = [
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
        ]  # fmt: skip
        return Pose(torch.stack(rows, -1).unflatten(-1, (3, 3)), translation)

    @staticmethod
    def exp(twist: Tensor) -> Pose:
        """SE(3) exponential of twists (..., 6), rotation vector (rad) first, then translation part."""
        w, v = twist[..., :3], twist[..., 3:]
        a, b, c = (k[..., None, None] for k in _exp_coefficients((w * w).sum(-1)))
        skew = hat(w)
        skew2 = skew @ skew
        eye = torch.eye(3, dtype=twist.dtype, device=twist.device).expand(skew.shape)
        return Pose(eye + a * skew + b * skew2, ((eye + b * skew + c * skew2) @ v[..., None])[..., 0])

    def log(self) -> Tensor:
        """Twists (..., 6), the inverse of :meth:`exp` for rotations below 180 degrees."""
        w = _rotation_log(self.rotation)
        a, b, _ = (k[..., None, None] for k in _exp_coefficients((w * w).sum(-1)))
        theta2 = (w * w).sum(-1)[..., None, None]
        small = theta2 < 1e-6
        safe = torch.where(small, torch.ones_like(theta2), theta2)
        d = torch.where(small, 1 / 12 + theta2 / 720, (1 - a / (2 * b)) / safe)
        skew = hat(w)
        eye = torch.eye(3, dtype=w.dtype, device=w.device).expand(skew.shape)
        v = (eye - 0.5 * skew + d * (skew @ skew)) @ self.translation[..., None]
        return torch.cat([w, v[..., 0]], -1)

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.rotation @ other.rotation, self.transform(other.translation[..., None, :])[..., 0, :])

    def inverse(self) -> Pose:
        rt = self.rotation.transpose(-1, -2)
        return Pose(rt, -(rt @ self.translation[..., None])[..., 0])

    def transform(self, xyz: Tensor) -> Tensor:
        """Move points (..., N, 3) from frame a to frame b."""
        return xyz @ self.rotation.transpose(-1, -2) + self.translation[..., None, :]

    def perturb(self, twist: Tensor) -> Pose:
        """Left update ``exp(twist) @ self``, re-orthonormalised."""
        moved = Pose.exp(twist) @ self
        return Pose(orthonormalize(moved.rotation), moved.translation)

    def matrix(self) -> Tensor:
        """Homogeneous (..., 4, 4)."""
        top = torch.cat([self.rotation, self.translation[..., None]], -1)
        bottom = torch.zeros_like(top[..., :1, :])
        bottom[..., 3] = 1
        return torch.cat([top, bottom], -2)

    def quat_xyzw(self) -> Tensor:
        """Unit quaternions (..., 4) in the order x, y, z, w with w >= 0."""
        return _quat_from_rotation(self.rotation)

    def to(self, *args: object, **kwargs: object) -> Pose:
        return Pose(self.rotation.to(*args, **kwargs), self.translation.to(*args, **kwargs))  # type: ignore[call-overload]

    def __getitem__(self, index: object) -> Pose:
        return Pose(self.rotation[index], self.translation[index])  # type: ignore[index]

    def is_finite(self) -> bool:
        return bool(torch.isfinite(self.rotation).all() and torch.isfinite(self.translation).all())


def orthonormalize(rotation: Tensor) -> Tensor:
    """One Newton step towards the nearest rotation: enough for matrices that drifted by rounding."""
    return rotation @ (1.5 * torch.eye(3, dtype=rotation.dtype, device=rotation.device) - 0.5 * rotation.mT @ rotation)


def adjoint(pose: Pose) -> Tensor:
    """(..., 6, 6), rotation first: ``b_from_a @ exp(x) == exp(adjoint(b_from_a) @ x) @ b_from_a``."""
    r = pose.rotation
    top = torch.cat([r, torch.zeros_like(r)], -1)
    return torch.cat([top, torch.cat([hat(pose.translation) @ r, r], -1)], -2)


def pose_error(estimate: Pose, truth: Pose) -> tuple[Tensor, Tensor]:
    """Angle in degrees and distance between the origins of frame a, seen in b. Give ``map_from_cam`` poses.

    The angle comes from the chord ||R1 - R2||, which resolves far smaller angles than acos of the trace.
    """
    chord = (estimate.rotation - truth.rotation).flatten(-2).norm(dim=-1)
    angle = 2 * torch.asin((chord / 8**0.5).clamp(max=1))
    return torch.rad2deg(angle), (estimate.translation - truth.translation).norm(dim=-1)


def _quat_from_rotation(r: Tensor) -> Tensor:
    """The best conditioned of the four classical formulas, per element."""
    m = [[r[..., i, j] for j in range(3)] for i in range(3)]
    candidates = torch.stack(
        [
            torch.stack([1 + m[0][0] - m[1][1] - m[2][2], m[1][0] + m[0][1], m[2][0] + m[0][2], m[2][1] - m[1][2]], -1),
            torch.stack([m[1][0] + m[0][1], 1 - m[0][0] + m[1][1] - m[2][2], m[2][1] + m[1][2], m[0][2] - m[2][0]], -1),
            torch.stack([m[2][0] + m[0][2], m[2][1] + m[1][2], 1 - m[0][0] - m[1][1] + m[2][2], m[1][0] - m[0][1]], -1),
            torch.stack([m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + m[0][0] + m[1][1] + m[2][2]], -1),
        ],
        -2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = torch.take_along_dim(candidates, best[..., None, None], -2)[..., 0, :]
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[..., 3:] < 0, -q, q)


def _rotation_log(r: Tensor) -> Tensor:
    q = _quat_from_rotation(r)
    sin_half = q[..., :3].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sin_half, q[..., 3:])
    small = sin_half < 1e-9
    return q[..., :3] * torch.where(small, torch.full_like(angle, 2.0), angle / sin_half.clamp(min=1e-30))
