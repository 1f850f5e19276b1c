"""How sure a pose is, from the curvature of the cost and the scatter of what the points want."""

from __future__ import annotations

import torch
from torch import Tensor

from nre_ros.nre.gnc import Linearisation

MIN_EFFECTIVE_POINTS = 8
"""With fewer, how far they scatter is not known either."""
MAX_LEVERAGE = 0.9


def pose_covariance(at_optimum: Linearisation) -> tuple[Tensor, Tensor]:
    """Covariances (..., H, 6, 6), rotation (rad) first, of the twist x in ``exp(x) @ cam_from_map``, and a mask
    (..., H) of the poses that the points do fix; the others' are meaningless.

    The robust ("sandwich") estimate of M-estimators: H^-1 M H^-1 with M = sum_n s_n s_n' / (1 - h_n), H the Hessian of
    the smoothed cost, s_n each point's slope at the optimum and h_n its leverage: the pose gives way to each point, so
    that its slope is less than its error (HC2 of MacKinnon and White, 1985). It holds whatever the points' noise is,
    provided they err independently. As M is an estimate from some points, the covariance grows as in Hotelling's T^2 by
    n / (n - 7), with n the number of points with normal slopes that would scatter alike,
    48 / sum_n (s_n' M^-1 s_n)^2.
    """
    hessian, slopes = at_optimum.hessian, at_optimum.point_slopes()
    scale = hessian.diagonal(dim1=-2, dim2=-1)
    fixed = (scale > 0).all(-1)
    root = torch.where(fixed[..., None], scale, torch.ones_like(scale)).sqrt()
    system = hessian / root[..., :, None] / root[..., None, :]
    eye = torch.eye(6, dtype=system.dtype, device=system.device)
    system = torch.where(fixed[..., None, None], system, eye)
    slopes = slopes / root[..., None, :]
    jacobian = at_optimum.jacobian / root[..., None, None, :]
    factor, failed = torch.linalg.cholesky_ex(system)
    fixed = fixed & (failed == 0)
    factor = torch.where(fixed[..., None, None], factor, eye)
    inverse = torch.cholesky_inverse(factor)
    # condition number, by norms: an upper bound is all that is asked
    fixed = fixed & (inverse.flatten(-2).norm(dim=-1) * system.flatten(-2).norm(dim=-1) < 1e12)
    curvature = at_optimum.smooth.curvature.to(jacobian)
    leverage = (curvature * (jacobian @ inverse[..., None, :, :] @ jacobian.mT)).sum((-1, -2))
    slopes = slopes / (1 - leverage.clamp(0, MAX_LEVERAGE)).sqrt()[..., None]
    meat = slopes.mT @ slopes
    points = _effective_points(slopes, meat)
    fixed = fixed & (points > MIN_EFFECTIVE_POINTS)
    growth = points / (points - 7).clamp_min(1)
    covariance = inverse @ meat @ inverse * growth[..., None, None] / root[..., :, None] / root[..., None, :]
    covariance = (covariance + covariance.mT) / 2
    return covariance, fixed & torch.isfinite(covariance).all(-1).all(-1)


def _effective_points(slopes: Tensor, meat: Tensor) -> Tensor:
    """How many points with normal slopes would scatter as these do (...,), from slopes (..., N, 6) and their ``meat``;
    no more than there are."""
    factor, failed = torch.linalg.cholesky_ex(meat)
    eye = torch.eye(6, dtype=meat.dtype, device=meat.device)
    factor = torch.where((failed == 0)[..., None, None], factor, eye)
    whitened = torch.linalg.solve_triangular(factor, slopes.mT, upper=False)
    concentration = whitened.square().sum(-2).square().sum(-1)
    count = (slopes.abs().amax(-1) > 0).sum(-1)
    return (48 / concentration.clamp_min(1e-30)).masked_fill(failed != 0, 0).minimum(count.to(meat))
