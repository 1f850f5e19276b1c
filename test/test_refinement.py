"""Bundle adjustment brings poses nearer to the truth, keeps the frame, and is not believed where it does not help."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import ros_world
import torch

from nre_ros.config import BuilderConfig, with_values
from nre_ros.features import load_network
from nre_ros.geometry import Camera, DistortionModel, Pose, pose_error
from nre_ros.geometry.alignment import fit_points, fit_poses
from nre_ros.mapping import MapBuilder
from nre_ros.mapping.bundle import Observations, PosePrior, adjust
from nre_ros.mapping.inspection import reprojection_errors_px
from nre_ros.mapping.refinement import refine_poses

VIEWS, POINTS, DEPTH = 12, 600, 4.0
PINHOLE = Camera(640, 480, 500.0, 505.0, 321.0, 238.0)
CAMERAS = [
    PINHOLE,
    Camera(640, 480, 500.0, 505.0, 321.0, 238.0, distortion=(-0.25, 0.08, 0.001, -0.0005, 0.0)),
    Camera(640, 480, 320.0, 322.0, 318.0, 241.0, DistortionModel.EQUIDISTANT, (0.02, -0.01, 0.002, 0.0)),
]
CONFIG = with_values(BuilderConfig(), {"pose_sigma_deg": 0.3, "pose_sigma_position": 0.0025})


@dataclass(frozen=True)
class Scene:
    map_from_cam: Pose
    cameras: list[Camera]
    xyz_map: torch.Tensor
    seen: Observations


def scene(cameras: list[Camera], noise_px: float, wrong: float = 0.0) -> Scene:
    """A wall seen by cameras in a row, each a little turned; ``wrong`` of the observations are anywhere."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5

    xyz = random(POINTS, 3) * torch.tensor([7.0, 4.0, 2.0], dtype=torch.float64)
    xyz[:, 2] += DEPTH
    twist = random(VIEWS, 6) * torch.tensor([0.2, 0.4, 0.2, 0.4, 0.4, 0.4], dtype=torch.float64)
    twist[:, 3] += torch.linspace(-1.5, 1.5, VIEWS, dtype=torch.float64)
    poses, views, points, pixels = Pose.exp(twist), [], [], []
    owned = [cameras[i % len(cameras)] for i in range(VIEWS)]
    for i, camera in enumerate(owned):
        uv_px, visible = camera.project(poses.inverse()[i].transform(xyz))
        index = torch.nonzero(visible & camera.contains(uv_px, 5.0))[:, 0]
        off = noise_px * torch.randn(len(index), 2, generator=generator, dtype=torch.float64)
        astray = torch.rand(len(index), generator=generator) < wrong
        off[astray] += 40 * random(int(astray.sum()), 2)
        views.append(torch.full_like(index, i))
        points.append(index)
        pixels.append(uv_px[index] + off)
    return Scene(poses, owned, xyz, Observations(torch.cat(views), torch.cat(points), torch.cat(pixels)))


def perturbed(poses: Pose, degrees: float, metres: float, seed: int = 0) -> Pose:
    """Each pose turned and moved at random, of these standard deviations an axis."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(poses.translation), 6, generator=generator, dtype=torch.float64)
    deviation = torch.tensor([degrees * torch.pi / 180] * 3 + [metres] * 3, dtype=torch.float64)
    return poses @ Pose.exp(noise * deviation)


@pytest.mark.parametrize("cameras", [CAMERAS[:1], CAMERAS], ids=["pinhole", "three models of distortion"])
def test_poses_come_nearer_to_the_truth(cameras: list[Camera]) -> None:
    made = scene(cameras, noise_px=0.4, wrong=0.05)
    given = perturbed(made.map_from_cam, 0.3, 0.01)
    generator = torch.Generator().manual_seed(5)
    start = made.xyz_map + 0.02 * torch.randn(POINTS, 3, generator=generator, dtype=torch.float64)
    found = refine_poses(given, made.cameras, start, made.seen, CONFIG)
    assert found.better and found.after_px < 0.7 < found.before_px
    angle_before, distance_before = pose_error(given, made.map_from_cam)
    angle_after, distance_after = pose_error(found.map_from_cam, made.map_from_cam)
    # what is left is mostly the gauge: the mean error of twelve given poses
    assert float(angle_after.median()) < 0.5 * float(angle_before.median())
    assert float(distance_after.median()) < 0.5 * float(distance_before.median())
    assert "poses refined" in found.told("metre")


def test_the_frame_stays_that_of_the_given_poses() -> None:
    """Images tell neither place nor scale of the whole: the prior must keep all seven freedoms where they were."""
    made = scene(CAMERAS[:1], noise_px=0.3)
    given = perturbed(made.map_from_cam, 0.3, 0.01)
    found = refine_poses(given, made.cameras, made.xyz_map, made.seen, CONFIG)
    drift = fit_points(found.map_from_cam.translation, given.translation, with_scale=True)
    assert abs(float(drift.scale) - 1) < 2e-3
    moved = (found.map_from_cam.translation - given.translation).mean(0)
    assert float(moved.norm()) < 0.002  # of 10 mm noise


def test_good_poses_stay_as_given() -> None:
    made = scene(CAMERAS[:1], noise_px=0.0)
    found = refine_poses(made.map_from_cam, made.cameras, made.xyz_map, made.seen, CONFIG)
    assert not found.better and "stay as given" in found.told("metre")
    assert torch.equal(found.map_from_cam.translation, made.map_from_cam.translation)


def test_a_tight_prior_holds_the_poses() -> None:
    made = scene(CAMERAS[:1], noise_px=0.3)
    given = perturbed(made.map_from_cam, 0.3, 0.01)
    pose, _ = adjust(PosePrior(given, 1e-8, 1e-8), made.cameras, made.xyz_map, made.seen, 1.0)
    angle, distance = pose_error(pose, given)
    assert float(angle.max()) < 1e-3 and float(distance.max()) < 1e-5


def test_any_unit_gives_the_same_poses() -> None:
    made = scene(CAMERAS[:1], noise_px=0.3)
    given = perturbed(made.map_from_cam, 0.3, 0.01)
    metres = refine_poses(given, made.cameras, made.xyz_map, made.seen, CONFIG).map_from_cam
    large = Pose(given.rotation, 1000 * given.translation)
    millimetres = refine_poses(large, made.cameras, 1000 * made.xyz_map, made.seen, CONFIG).map_from_cam
    torch.testing.assert_close(millimetres.translation / 1000, metres.translation, rtol=0, atol=1e-6)
    torch.testing.assert_close(millimetres.rotation, metres.rotation, rtol=0, atol=1e-6)


def test_a_map_of_images_with_rough_poses_comes_nearer_to_the_truth() -> None:
    """Through the builder, from rendered images without depth."""
    truth = [ros_world.around(5.0 * i - 25, 2.5 + 0.1 * (i % 3)) for i in range(10)]
    true_poses = Pose(torch.stack([p.rotation for p in truth]), torch.stack([p.translation for p in truth]))
    given = perturbed(true_poses, 0.3, 0.01)
    values = {"keyframe_motion": 0.0, "points_per_keyframe": 400, "max_epipolar_px": 4.0, "pose_sigma_position": 0.004}
    made = MapBuilder(load_network("compact"), with_values(BuilderConfig(), values | {"refine_poses": True}))
    for i, pose in enumerate(truth):
        frame = ros_world.frame_from(pose, i, noise_seed=i)
        made.add(replace(frame, map_from_cam=given[i], depth_m=None))
    map_ = made.build()
    before, after = (pose_error(poses, true_poses) for poses in (given, map_.map_from_keyframe))
    for rough, refined in zip(before, after, strict=True):
        assert float(refined.median()) < 0.9 * float(rough.median()), "what all poses are off by together stays"
    before, after = (_errors_of_shape(poses, true_poses) for poses in (given, map_.map_from_keyframe))
    for rough, refined in zip(before, after, strict=True):
        assert float(refined.median()) < 0.6 * float(rough.median())
    found = made.refinement
    assert found is not None and found.better and found.after_px < found.before_px
    assert float(reprojection_errors_px(map_).median()) < 0.75


def _errors_of_shape(poses: Pose, truth: Pose) -> tuple[torch.Tensor, torch.Tensor]:
    """Angles and distances once both were laid upon each other: what images can tell."""
    return pose_error(fit_poses(poses, truth, 2.5, with_scale=False).move(poses), truth)
