"""Three points, one pose: Lambda Twist (Persson and Nordberg, ECCV 2018), batched."""

from __future__ import annotations

import torch
from torch import Tensor

from nre_ros.geometry import Pose

MAX_SKEW = 1e-6
"""How far R R' may be from one."""


def solve_p3p(bearings: Tensor, xyz_map: Tensor) -> tuple[Pose, Tensor]:
    """Up to four poses ``cam_from_map`` for each of M triplets.

    ``bearings`` (M, 3, 3) unit rays in the camera frame, ``xyz_map`` (M, 3, 3): sample, point, xyz; float64.
    Returns poses (M, 4) and a mask (M, 4) of those that are real, finite and see all three points in front.
    """
    depths, valid = _depths(bearings, xyz_map)
    depths = _polish(depths, bearings, xyz_map)
    valid = valid & (depths > 0).all(-1) & torch.isfinite(depths).all(-1)
    xyz_cam = depths[..., None] * bearings[:, None]  # (M, 4, 3, 3)
    pose = _align(xyz_cam, xyz_map[:, None])
    finite = torch.isfinite(pose.rotation).all(-1).all(-1) & torch.isfinite(pose.translation).all(-1)
    # triplets seen in almost one direction give frames that are none
    proper = (pose.rotation @ pose.rotation.mT - torch.eye(3).to(pose.rotation)).abs().amax((-1, -2)) < MAX_SKEW
    valid = valid & finite & proper
    eye = torch.eye(3, dtype=bearings.dtype, device=bearings.device)
    rotation = torch.where(valid[..., None, None], pose.rotation, eye)
    translation = torch.where(valid[..., None], pose.translation, torch.zeros_like(pose.translation))
    return Pose(rotation, translation), valid


def _depths(bearings: Tensor, xyz: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (M, 4, 3) along the rays; section 3 of the paper, in its symbols."""
    y1, y2, y3 = bearings.unbind(1)
    x1, x2, x3 = xyz.unbind(1)
    a12, a13, a23 = (((p - q) ** 2).sum(-1) for p, q in ((x1, x2), (x1, x3), (x2, x3)))
    c12, c13, c23 = ((p * q).sum(-1) for p, q in ((y1, y2), (y1, y3), (y2, y3)))
    b12, b13, b23 = -2 * c12, -2 * c13, -2 * c23
    s12, s13, s23 = 1 - c12**2, 1 - c13**2, 1 - c23**2
    blob = c12 * c23 * c13 - 1

    p3 = a13 * (a23 * s13 - a13 * s23)
    p2 = 2 * blob * a23 * a13 + a13 * (2 * a12 + a13) * s23 + a23 * (a23 - a12) * s13
    p1 = a23 * (a13 - a23) * s12 - a12 * a12 * s23 - 2 * a12 * (blob * a23 + a13 * s23)
    p0 = a12 * (a12 * s23 - a23 * s12)
    g = _real_cubic_root(p2 / p3, p1 / p3, p0 / p3)

    conic = torch.stack(
        [
            torch.stack([a23 * (1 - g), a23 * b12 / 2, -a23 * b13 * g / 2], -1),
            torch.stack([a23 * b12 / 2, a23 - a12 + a13 * g, b23 * (a13 * g - a12) / 2], -1),
            torch.stack([-a23 * b13 * g / 2, b23 * (a13 * g - a12) / 2, g * (a13 - a23) - a12], -1),
        ],
        -2,
    )
    values, vectors = _eigen_of_singular(conic)
    ratio = (-values[:, 1] / values[:, 0]).clamp_min(0).sqrt()
    e1, e2 = vectors[..., 0], vectors[..., 1]

    solutions, valid = [], []
    for s in (ratio, -ratio):
        below = 1 / (s * e2[:, 0] - e1[:, 0])
        w0 = (e1[:, 1] - s * e2[:, 1]) * below
        w1 = (e1[:, 2] - s * e2[:, 2]) * below
        a = (a13 - a12) * w1**2 - a12 * b13 * w1 - a12
        b = a13 * b12 * w1 - a12 * b13 * w0 - 2 * w0 * w1 * (a12 - a13)
        c = (a13 - a12) * w0**2 + a13 * b12 * w0 + a13
        discriminant = b * b - 4 * a * c
        root = discriminant.clamp_min(0).sqrt()
        q = -(b + torch.where(b >= 0, root, -root)) / 2
        for tau in (q / a, c / q):
            d2 = (a23 / (tau * (b23 + tau) + 1)).clamp_min(0).sqrt()
            d3 = tau * d2
            d1 = w0 * d2 + w1 * d3
            solutions.append(torch.stack([d1, d2, d3], -1))
            valid.append((discriminant >= 0) & (tau > 0) & (d1 > 0))
    return torch.stack(solutions, 1), torch.stack(valid, 1)


def _real_cubic_root(b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """One real root of x^3 + b x^2 + c x + d, the one where the slope is steepest, by formula and Newton."""
    shift = b / 3
    p = c - b * b / 3
    q = 2 * b**3 / 27 - b * c / 3 + d
    half = q / 2
    discriminant = half**2 + (p / 3) ** 3
    root = discriminant.clamp_min(0).sqrt()
    one = _cbrt(-half - torch.where(half >= 0, root, -root))
    single = one - p / (3 * torch.where(one.abs() < 1e-300, torch.full_like(one, 1e-300), one))
    radius = 2 * (-p / 3).clamp_min(1e-300).sqrt()
    cosine = (-half / (radius / 2) ** 3).clamp(-1, 1)
    triple = torch.where(half > 0, -1.0, 1.0) * radius * torch.cos(torch.acos(cosine.abs()) / 3)
    x = torch.where(discriminant > 0, single, triple) - shift
    for _ in range(3):
        slope = (3 * x + 2 * b) * x + c
        step = (((x + b) * x + c) * x + d) / slope
        x = torch.where(torch.isfinite(step), x - step, x)
    return x


def _cbrt(x: Tensor) -> Tensor:
    return x.sign() * x.abs().pow(1 / 3)


def _eigen_of_singular(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The two non-zero eigenvalues (M, 2), larger magnitude first, and eigenvectors (M, 3, 2) of symmetric
    matrices (M, 3, 3) whose third eigenvalue is zero."""
    m00, m01, m02 = matrix[:, 0].unbind(-1)
    _, m11, m12 = matrix[:, 1].unbind(-1)
    m22 = matrix[:, 2, 2]
    trace = m00 + m11 + m22
    minors = m00 * m11 - m01**2 + m00 * m22 - m02**2 + m11 * m22 - m12**2
    root = (trace * trace - 4 * minors).clamp_min(0).sqrt()
    large = (trace + torch.where(trace >= 0, root, -root)) / 2
    values = torch.stack([large, trace - large], -1)
    vectors = []
    for value in values.unbind(-1):
        rows = matrix - value[:, None, None] * torch.eye(3, dtype=matrix.dtype, device=matrix.device)
        crosses = torch.stack(
            [torch.linalg.cross(rows[:, i], rows[:, j], dim=-1) for i, j in ((0, 1), (0, 2), (1, 2))], 1
        )
        norms = crosses.norm(dim=-1)
        best = norms.argmax(1)
        pick = torch.arange(len(matrix), device=matrix.device)
        vectors.append(crosses[pick, best] / norms[pick, best][:, None])
    return values, torch.stack(vectors, -1)


def _polish(depths: Tensor, bearings: Tensor, xyz: Tensor, steps: int = 2) -> Tensor:
    """Gauss-Newton on the three distances between the points; depths (M, 4, 3)."""
    pairs = ((0, 1), (0, 2), (1, 2))
    cosines = torch.stack([(bearings[:, i] * bearings[:, j]).sum(-1) for i, j in pairs], -1)[:, None]
    targets = torch.stack([((xyz[:, i] - xyz[:, j]) ** 2).sum(-1) for i, j in pairs], -1)[:, None]
    for _ in range(steps):
        d1, d2, d3 = depths.unbind(-1)
        c12, c13, c23 = cosines.unbind(-1)
        r1 = d1 * d1 + d2 * d2 - 2 * d1 * d2 * c12 - targets[..., 0]
        r2 = d1 * d1 + d3 * d3 - 2 * d1 * d3 * c13 - targets[..., 1]
        r3 = d2 * d2 + d3 * d3 - 2 * d2 * d3 * c23 - targets[..., 2]
        u1, u2 = 2 * (d1 - d2 * c12), 2 * (d2 - d1 * c12)
        v1, v3 = 2 * (d1 - d3 * c13), 2 * (d3 - d1 * c13)
        w2, w3 = 2 * (d2 - d3 * c23), 2 * (d3 - d2 * c23)
        # J = [[u1, u2, 0], [v1, 0, v3], [0, w2, w3]] solved by Cramer's rule
        det = -u1 * v3 * w2 - u2 * v1 * w3
        s1 = -r1 * v3 * w2 - u2 * (r2 * w3 - v3 * r3)
        s2 = u1 * (r2 * w3 - v3 * r3) - r1 * v1 * w3
        s3 = -u1 * r2 * w2 - u2 * v1 * r3 + r1 * v1 * w2
        step = torch.stack([s1, s2, s3], -1) / det[..., None]
        depths = torch.where(torch.isfinite(step), depths - step, depths)
    return depths


def _align(xyz_cam: Tensor, xyz_map: Tensor) -> Pose:
    """The rigid motion that carries one triangle (..., 3, 3) onto a congruent one, by their frames."""
    from_map, from_cam = _triangle_frame(xyz_map), _triangle_frame(xyz_cam)
    rotation = from_cam @ from_map.mT
    return Pose(rotation, xyz_cam.mean(-2) - (rotation @ xyz_map.mean(-2)[..., None])[..., 0])


def _triangle_frame(xyz: Tensor) -> Tensor:
    first = xyz[..., 1, :] - xyz[..., 0, :]
    first = first / first.norm(dim=-1, keepdim=True)
    normal = torch.linalg.cross(first, xyz[..., 2, :] - xyz[..., 0, :], dim=-1)
    normal = normal / normal.norm(dim=-1, keepdim=True)
    return torch.stack([first, torch.linalg.cross(normal, first, dim=-1), normal], -1)
