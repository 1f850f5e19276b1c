"""How sure a pose is, from the curvature of the cost and the scatter of what the points want."""

from __future__ import annotations

import torch
from torch import Tensor

from nre_ros.nre.gnc import Linearisation


def pose_covariance(at_optimum: Linearisation) -> Tensor | None:
    """Covariance (6, 6), rotation (rad) first, of the twist x in ``exp(x) @ cam_from_map``, for a batch of one pose.

    The robust ("sandwich") estimate of M-estimators: H^-1 (sum_n s_n s_n') H^-1, with H the Hessian of the smoothed
    cost and s_n each point's slope at the optimum. It holds whatever the points' noise is, provided they err
    independently, and grows by the degrees of freedom that six parameters take. None when H is singular: the points
    do not fix the pose.
    """
    hessian, slopes = at_optimum.hessian[0], at_optimum.point_slopes[0]
    used = slopes.abs().amax(-1) > 0
    count = int(used.sum())
    if count <= 6:
        return None
    scale = hessian.diagonal().clamp_min(0).sqrt()
    if bool((scale <= 0).any()):
        return None
    system = hessian / scale[:, None] / scale
    factor, failed = torch.linalg.cholesky_ex(system)
    if int(failed) != 0 or float(torch.linalg.cond(system)) > 1e12:
        return None
    inverse = torch.cholesky_inverse(factor) / scale[:, None] / scale
    meat = slopes.T @ slopes
    covariance = inverse @ meat @ inverse * (count / (count - 6))
    return (covariance + covariance.T) / 2 if bool(torch.isfinite(covariance).all()) else None
