"""Aligning frames by the poses of the same cameras: exact on exact data, robust to wrong poses, honest on scale."""

from __future__ import annotations

import math

import pytest
import torch

from nre_ros.geometry import Pose, pose_error
from nre_ros.geometry.alignment import Similarity, align_poses, fit_points, fit_poses

TRUTH = Similarity(
    torch.tensor(3.7, dtype=torch.float64),
    Pose.exp(torch.tensor([0.4, -1.9, 0.8, 0, 0, 0], dtype=torch.float64)).rotation,
    torch.tensor([5.0, -2.0, 11.0], dtype=torch.float64),
)
RIGID = Similarity(torch.ones((), dtype=torch.float64), TRUTH.rotation, TRUTH.translation)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cameras(count: int, spread: float = 2.0, seed: int = 0) -> Pose:
    poses = Pose.exp(normal(seed, count, 6))
    return Pose(poses.rotation, spread * poses.translation)


def noisy(poses: Pose, degrees: float, distance: float, seed: int = 1) -> Pose:
    """Turned and moved by normal noise of these deviations in each axis."""
    noise = normal(seed, len(poses.translation), 6)
    turned = poses @ Pose.exp(torch.cat([noise[:, :3] * math.radians(degrees), torch.zeros(len(noise), 3)], 1))
    return Pose(turned.rotation, poses.translation + distance * noise[:, 3:])


def off(found: Similarity, truth: Similarity, around: torch.Tensor) -> tuple[float, float, float]:
    """Angle (deg), largest distance of moved points, and share of scale between two similarities."""
    angle, _ = pose_error(Pose(found.rotation, truth.translation), Pose(truth.rotation, truth.translation))
    apart = (found.transform(around) - truth.transform(around)).norm(dim=-1).max()
    return float(angle), float(apart), abs(float(found.scale / truth.scale) - 1)


def test_similarities_are_a_group() -> None:
    other = Similarity(torch.tensor(0.3, dtype=torch.float64), cameras(1, seed=5).rotation[0], normal(6, 3))
    xyz = normal(2, 7, 3)
    torch.testing.assert_close((TRUTH @ other).transform(xyz), TRUTH.transform(other.transform(xyz)))
    torch.testing.assert_close(TRUTH.inverse().transform(TRUTH.transform(xyz)), xyz)
    torch.testing.assert_close((TRUTH @ Similarity.identity()).transform(xyz), TRUTH.transform(xyz))


def test_a_moved_camera_sees_moved_points_where_it_saw_them() -> None:
    """In the same direction, and scaled in depth."""
    poses, xyz = cameras(4), normal(3, 9, 3)
    seen = poses.inverse().transform(xyz.expand(4, 9, 3))
    moved = TRUTH.move(poses).inverse().transform(TRUTH.transform(xyz).expand(4, 9, 3))
    torch.testing.assert_close(moved, TRUTH.scale * seen)


@pytest.mark.parametrize("truth", [TRUTH, RIGID], ids=["sim3", "se3"])
def test_exact_data_gives_the_exact_answer(truth: Similarity) -> None:
    xyz, poses = normal(4, 5, 3), cameras(5)
    with_scale = truth is TRUTH
    found = align_poses(poses, truth.move(poses), max_distance=0.1, max_angle_deg=2, with_scale=with_scale)
    assert bool(found.inlier.all()) and float(found.distance.max()) < 1e-9 and float(found.angle_deg.max()) < 1e-6
    for similarity in (
        found.b_from_a,
        fit_points(xyz, truth.transform(xyz), with_scale=with_scale),
        fit_poses(poses, truth.move(poses), 1.0, with_scale=with_scale),
    ):
        assert max(off(similarity, truth, xyz)) < 1e-6


def test_a_mirrored_cloud_is_not_taken_for_a_turned_one() -> None:
    xyz = normal(4, 20, 3)
    found = fit_points(xyz, xyz * torch.tensor([1.0, 1.0, -1.0]), with_scale=False)
    assert float(torch.det(found.rotation)) == pytest.approx(1)


@pytest.mark.parametrize("truth", [TRUTH, RIGID], ids=["sim3", "se3"])
def test_wrong_poses_do_not_matter(truth: Similarity) -> None:
    """Sixty percent wrong, the others with noise: about what is left is averaged."""
    poses = cameras(50)
    given = noisy(truth.move(poses), 0.3, 0.02)
    wrong = torch.arange(50) < 30
    scattered = cameras(50, spread=10, seed=9)
    given = Pose(
        torch.where(wrong[:, None, None], scattered.rotation, given.rotation),
        torch.where(wrong[:, None], scattered.translation, given.translation),
    )
    found = align_poses(poses, given, max_distance=0.2, max_angle_deg=2, with_scale=truth is TRUTH)
    assert torch.equal(found.inlier, ~wrong)
    degrees, distance, scale = off(found.b_from_a, truth, poses.translation)
    assert degrees < 0.2 and distance < 0.05 and scale < 0.005


@pytest.mark.parametrize("spread", [(3.0, 0.0, 0.0), (0.0, 0.0, 0.0)], ids=["line", "point"])
def test_orientations_fix_the_turn_where_positions_do_not(spread: tuple[float, ...]) -> None:
    poses = cameras(30)
    poses = Pose(poses.rotation, poses.translation * torch.tensor(spread, dtype=torch.float64))
    found = align_poses(poses, noisy(RIGID.move(poses), 0.3, 0.01), max_distance=0.1, max_angle_deg=2, with_scale=False)
    assert int(found.inlier.sum()) >= 28
    assert off(found.b_from_a, RIGID, poses.translation)[0] < 0.3


def test_the_scales_deviation_is_its_error() -> None:
    """In the mean of squares over many draws; and at one place no scale is to be had."""
    poses = cameras(20)
    ratios = []
    for seed in range(60):
        given = noisy(TRUTH.move(poses), 0.1, 0.1, seed=100 + seed)
        found = align_poses(poses, given, max_distance=1, max_angle_deg=2, with_scale=True)
        ratios.append((float(found.b_from_a.scale / TRUTH.scale) - 1) / found.scale_deviation)
    assert 0.6 < math.sqrt(sum(r * r for r in ratios) / len(ratios)) < 1.5
    still = Pose(poses.rotation, 1e-4 * poses.translation)
    given = noisy(TRUTH.move(still), 0.1, 0.1)
    assert align_poses(still, given, max_distance=1, max_angle_deg=2, with_scale=True).scale_deviation > 0.2


def test_same_input_same_answer() -> None:
    poses = cameras(80)
    given = noisy(TRUTH.move(poses), 0.3, 0.02)
    first, again = (align_poses(poses, given, max_distance=0.2, max_angle_deg=2, with_scale=True) for _ in range(2))
    assert torch.equal(first.b_from_a.translation, again.b_from_a.translation)
