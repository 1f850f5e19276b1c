"""Three points, one pose: the true one is among the answers, and every answer is one."""

from __future__ import annotations

import torch
from torch import Tensor

from nre_ros.geometry import Pose, pose_error
from nre_ros.nre.p3p import solve_p3p


def random_triplets(count: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Pose]:
    """Bearings (M, 3, 3) and map points (M, 3, 3) of the same three points, and the poses that belong to them."""
    rng = torch.Generator().manual_seed(seed)
    across = 1.6 * torch.rand((count, 3, 2), generator=rng, dtype=torch.float64) - 0.8
    depth = 1 + 9 * torch.rand((count, 3, 1), generator=rng, dtype=torch.float64)
    xyz_cam = torch.cat([across * depth, depth], -1) * scale
    twist = torch.randn((count, 6), generator=rng, dtype=torch.float64)
    twist[:, 3:] *= 5 * scale
    cam_from_map = Pose.exp(twist)
    return xyz_cam / xyz_cam.norm(dim=-1, keepdim=True), cam_from_map.inverse().transform(xyz_cam), cam_from_map


def reprojection_deg(pose: Pose, bearings: Tensor, xyz_map: Tensor) -> Tensor:
    """Largest angle (M, 4) between a bearing and the ray to its point."""
    xyz_cam = pose.transform(xyz_map[:, None])
    rays = xyz_cam / xyz_cam.norm(dim=-1, keepdim=True)
    return torch.rad2deg((rays - bearings[:, None]).norm(dim=-1)).amax(-1)


def test_the_true_pose_is_among_the_answers() -> None:
    for scale in (1.0, 1e3, 1e-3):
        bearings, xyz_map, truth = random_triplets(2000, 0, scale)
        poses, valid = solve_p3p(bearings, xyz_map)
        degrees, distance = pose_error(poses.inverse(), truth[:, None].inverse())
        near = valid & (degrees < 0.01) & (distance < 1e-3 * scale)
        assert near.any(1).double().mean() > 0.99
        assert bool((valid.sum(1) <= 4).all())


def test_every_answer_reprojects_with_all_points_in_front() -> None:
    bearings, xyz_map, _ = random_triplets(2000, 1)
    poses, valid = solve_p3p(bearings, xyz_map)
    assert (reprojection_deg(poses, bearings, xyz_map)[valid] < 1e-4).double().mean() > 0.99
    along = (poses.transform(xyz_map[:, None]) * bearings[:, None]).sum(-1)
    assert bool((along[valid] > 0).all())
    eye = torch.eye(3, dtype=torch.float64)
    assert bool(((poses.rotation @ poses.rotation.mT - eye).abs() < 1e-6).all())
    assert bool((torch.linalg.det(poses.rotation) > 0.99).all())


def test_degenerate_triplets_are_masked_and_finite() -> None:
    bearings, xyz_map, _ = random_triplets(50, 2)
    on_a_line = xyz_map[:, :1] + torch.tensor([[0.0], [1.0], [2.5]], dtype=torch.float64) * (xyz_map[:, 1:2])
    cases = {
        "one point twice": (bearings[:, [0, 1, 1]], xyz_map[:, [0, 1, 1]]),
        "one point three times": (bearings[:, [0, 0, 0]], xyz_map[:, [0, 0, 0]]),
        "one bearing, three points": (bearings[:, [0, 0, 0]], xyz_map),
        "one point, three bearings": (bearings, xyz_map[:, [0, 0, 0]]),
        "points on a line": (bearings, on_a_line),
        "not a number": (bearings, xyz_map * torch.nan),
    }
    for name, (rays, points) in cases.items():
        poses, valid = solve_p3p(rays, points)
        assert poses.is_finite(), name
        if name != "points on a line":
            wrong = valid & ~(reprojection_deg(poses, rays, points.nan_to_num()) < 0.1)
            assert not bool(wrong.any()), name
    assert not bool(solve_p3p(*cases["not a number"])[1].any())


def test_nothing_in_nothing_out() -> None:
    poses, valid = solve_p3p(torch.zeros((0, 3, 3), dtype=torch.float64), torch.zeros((0, 3, 3), dtype=torch.float64))
    assert poses.rotation.shape == (0, 4, 3, 3) and valid.shape == (0, 4)
