"""Cameras with ROS's distortion models, their projections and analytic Jacobians.

Pixels: the centre of the top-left pixel is (0, 0). Camera frame: x right, y down, z forward.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import CalibrationError

MIN_DEPTH = 1e-6
"""Points nearer than this share of their distance to the image plane count as behind the camera."""


class DistortionModel(Enum):
    """Names as in sensor_msgs/CameraInfo."""

    PLUMB_BOB = "plumb_bob"
    RATIONAL = "rational_polynomial"
    EQUIDISTANT = "equidistant"


_COEFFICIENTS = {DistortionModel.PLUMB_BOB: 5, DistortionModel.RATIONAL: 8, DistortionModel.EQUIDISTANT: 4}


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera at one image size.

    ``distortion`` holds ROS's ``D`` (plumb_bob: k1 k2 p1 p2 k3, rational_polynomial: k1 k2 p1 p2 k3 k4 k5 k6,
    equidistant: k1 k2 k3 k4); missing trailing coefficients are zero.

    Raises CalibrationError for sizes, focal lengths or coefficients that no camera can have.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: DistortionModel = DistortionModel.PLUMB_BOB
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(math.isfinite(v) for v in numbers):
            raise CalibrationError(f"camera calibration holds NaN or infinity: {numbers}; calibrate the camera again")
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(f"camera size is {self.width}x{self.height}, expected positive width and height")
        if self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(
                f"focal lengths are fx={self.fx}, fy={self.fy}, expected positive pixels: is the camera calibrated?"
            )
        expected = _COEFFICIENTS[self.model]
        if len(self.distortion) > expected and any(self.distortion[expected:]):
            raise CalibrationError(
                f"{self.model.value} takes at most {expected} distortion coefficients, got {len(self.distortion)}"
            )

    @property
    def has_distortion(self) -> bool:
        return self.model is DistortionModel.EQUIDISTANT or any(self.distortion)

    def matrix(self) -> np.ndarray:
        """K as float64 (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def coefficients(self) -> np.ndarray:
        """``D`` padded with zeros to the model's full length, float64."""
        full = np.zeros(_COEFFICIENTS[self.model])
        given = self.distortion[: len(full)]
        full[: len(given)] = given
        return full

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image resampled to another size, each axis by its own exact ratio."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def project(self, xyz_cam: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., 2) of camera-frame points (..., 3), and a mask (...) of those that have an image.

        A point behind the camera, or beyond the angle where the distortion polynomial stops growing, has
        none; its pixel is finite but means nothing. Points outside the image bounds are kept: see :meth:`contains`.
        """
        xy, valid = self._normalized(xyz_cam)
        uv = self._distort(xy, xyz_cam)[0] if self.has_distortion else xy
        return self._to_pixels(uv), valid

    def project_with_jacobian(self, xyz_cam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`project`, with the Jacobian (..., 2, 3) of the pixel by the camera-frame point between them."""
        xy, valid = self._normalized(xyz_cam)
        if self.model is DistortionModel.EQUIDISTANT:
            distorted, jacobian = self._distort(xy, xyz_cam, with_jacobian=True)
            assert jacobian is not None
        else:
            x, y = xy.unbind(-1)
            inv_z = 1 / _safe_depth(xyz_cam)
            zero = torch.zeros_like(x)
            pinhole = torch.stack([inv_z, zero, -x * inv_z, zero, inv_z, -y * inv_z], -1).unflatten(-1, (2, 3))
            if self.has_distortion:
                distorted, bend = self._distort(xy, xyz_cam, with_jacobian=True)
                assert bend is not None
                jacobian = bend @ pinhole
            else:
                distorted, jacobian = xy, pinhole
        focal = xyz_cam.new_tensor([self.fx, self.fy])
        return self._to_pixels(distorted), jacobian * focal[:, None], valid

    def unproject(self, uv_px: Tensor) -> Tensor:
        """Unit bearing vectors (..., 3) of pixels (..., 2); Newton iterations undo the distortion."""
        target = (uv_px - uv_px.new_tensor([self.cx, self.cy])) / uv_px.new_tensor([self.fx, self.fy])
        if self.model is DistortionModel.EQUIDISTANT:
            return self._unproject_equidistant(target)
        xy = target
        if self.has_distortion:
            for _ in range(12):
                distorted, jacobian = self._distort_polynomial(xy, with_jacobian=True)
                assert jacobian is not None
                xy = xy - _solve_2x2(jacobian, distorted - target)
        bearing = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
        return bearing / bearing.norm(dim=-1, keepdim=True)

    def contains(self, uv_px: Tensor, border_px: float = 0.0) -> Tensor:
        """Mask (...) of pixels (..., 2) that lie on the image, at least ``border_px`` inside its edge."""
        low = border_px - 0.5
        upper = uv_px.new_tensor([self.width - 0.5 - border_px, self.height - 0.5 - border_px])
        return ((uv_px >= low) & (uv_px <= upper)).all(-1)

    def _to_pixels(self, xy: Tensor) -> Tensor:
        return xy * xy.new_tensor([self.fx, self.fy]) + xy.new_tensor([self.cx, self.cy])

    def _normalized(self, xyz_cam: Tensor) -> tuple[Tensor, Tensor]:
        xy = xyz_cam[..., :2] / _safe_depth(xyz_cam)[..., None]
        valid = xyz_cam[..., 2] > MIN_DEPTH * xyz_cam.norm(dim=-1)
        if self.model is DistortionModel.EQUIDISTANT:
            angle = torch.atan2(xyz_cam[..., :2].norm(dim=-1), xyz_cam[..., 2])
            return xy, (angle < _radial_limit(self)) & (xyz_cam.norm(dim=-1) > 0)
        if self.has_distortion:
            valid = valid & (xy.norm(dim=-1) < _radial_limit(self))
        return xy, valid

    def _distort(self, xy: Tensor, xyz_cam: Tensor, with_jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
        if self.model is DistortionModel.EQUIDISTANT:
            return self._distort_equidistant(xyz_cam, with_jacobian)
        return self._distort_polynomial(xy, with_jacobian)

    def _distort_polynomial(self, xy: Tensor, with_jacobian: bool = False) -> tuple[Tensor, Tensor | None]:
        """plumb_bob and rational; Jacobian (..., 2, 2) by the undistorted point."""
        full = np.zeros(8)
        full[: len(self.coefficients())] = self.coefficients()
        k1, k2, p1, p2, k3, k4, k5, k6 = (float(v) for v in full)
        x, y = xy.unbind(-1)
        xx, yy, xy_ = x * x, y * y, x * y
        r2 = xx + yy
        above = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        below = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        radial = above / below
        distorted = torch.stack(
            [x * radial + 2 * p1 * xy_ + p2 * (r2 + 2 * xx), y * radial + p1 * (r2 + 2 * yy) + 2 * p2 * xy_], -1
        )
        if not with_jacobian:
            return distorted, None
        d_above = k1 + r2 * (2 * k2 + r2 * 3 * k3)
        d_below = k4 + r2 * (2 * k5 + r2 * 3 * k6)
        slope = 2 * (d_above - radial * d_below) / below  # d radial / d r2, doubled
        cross = slope * xy_ + 2 * p1 * x + 2 * p2 * y
        jacobian = torch.stack(
            [
                radial + slope * xx + 2 * p1 * y + 6 * p2 * x,
                cross,
                cross,
                radial + slope * yy + 6 * p1 * y + 2 * p2 * x,
            ],
            -1,
        ).unflatten(-1, (2, 2))
        return distorted, jacobian

    def _distort_equidistant(self, xyz_cam: Tensor, with_jacobian: bool) -> tuple[Tensor, Tensor | None]:
        """Kannala-Brandt; Jacobian (..., 2, 3) by the camera-frame point, finite on the optical axis."""
        k1, k2, k3, k4 = (float(v) for v in self.coefficients())
        x, y, z = xyz_cam.unbind(-1)
        rho2 = x * x + y * y
        norm2 = rho2 + z * z
        axis = rho2 <= 1e-12 * norm2  # the camera's centre too
        rho = torch.where(axis, torch.ones_like(rho2), rho2).sqrt()
        theta = torch.atan2(torch.where(axis, torch.zeros_like(rho), rho), z)
        t2 = theta * theta
        theta_d = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
        safe_z = _safe_depth(xyz_cam)
        scale = torch.where(axis, 1 / safe_z, theta_d / rho)
        distorted = torch.stack([x * scale, y * scale], -1)
        if not with_jacobian:
            return distorted, None
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        safe_norm2 = norm2.clamp(min=1e-30)
        # d scale / d rho, divided by rho, so that it multiplies x and y directly
        bend = torch.where(axis, torch.zeros_like(rho), (slope * z / safe_norm2 - scale) / (rho * rho))
        dz = torch.where(axis, -1 / (safe_z * safe_z), -slope / safe_norm2)
        jacobian = torch.stack(
            [scale + bend * x * x, bend * x * y, dz * x, bend * x * y, scale + bend * y * y, dz * y], -1
        ).unflatten(-1, (2, 3))
        return distorted, jacobian

    def _unproject_equidistant(self, target: Tensor) -> Tensor:
        k1, k2, k3, k4 = (float(v) for v in self.coefficients())
        theta_d = target.norm(dim=-1)
        theta = theta_d.clamp(max=math.pi)
        for _ in range(12):
            t2 = theta * theta
            value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) - theta_d
            slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
            theta = (theta - value / slope.clamp(min=1e-3)).clamp(0, math.pi)
        direction = target / theta_d.clamp(min=1e-30)[..., None]
        return torch.cat([direction * theta.sin()[..., None], theta.cos()[..., None]], -1)


def _safe_depth(xyz_cam: Tensor) -> Tensor:
    """Depth kept away from zero with its sign, so that nothing divides by zero; such points are masked."""
    z = xyz_cam[..., 2]
    tiny = torch.full_like(z, 1e-12)
    return torch.where(z.abs() < 1e-12, torch.where(z < 0, -tiny, tiny), z)


def _solve_2x2(matrix: Tensor, rhs: Tensor) -> Tensor:
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    det = a * d - b * c
    det = torch.where(det.abs() < 1e-12, torch.full_like(det, 1e-12), det)
    u, v = rhs.unbind(-1)
    return torch.stack([(d * u - b * v) / det, (a * v - c * u) / det], -1)


@functools.lru_cache(maxsize=64)
def _radial_limit(camera: Camera) -> float:
    """Largest undistorted radius (equidistant: angle, rad) up to which the radial distortion grows."""
    k = camera.coefficients()
    if camera.model is DistortionModel.EQUIDISTANT:
        slope = [9 * k[3], 7 * k[2], 5 * k[1], 3 * k[0], 1.0]
        return min(math.sqrt(_first_positive_root(slope)), math.pi)
    full = np.zeros(8)
    full[: len(k)] = k
    above = np.array([full[4], full[1], full[0], 1.0])  # in r2, highest power first
    below = np.array([full[7], full[6], full[5], 1.0])
    # derivative by r of r * above(r2) / below(r2), times below^2
    product = np.polymul(above, below)
    slope_num: np.ndarray = np.polysub(np.polymul(np.polyder(above), below), np.polymul(above, np.polyder(below)))
    slope = np.polyadd(product, 2 * np.polymul([1.0, 0.0], slope_num))
    return math.sqrt(min(_first_positive_root(slope), _first_positive_root(below)))


def _first_positive_root(coefficients: np.ndarray | list[float]) -> float:
    roots = np.roots(np.trim_zeros(np.asarray(coefficients, np.float64), "f"))
    real = roots[np.abs(roots.imag) < 1e-9].real
    positive = real[real > 1e-12]
    return float(positive.min()) if len(positive) else math.inf
