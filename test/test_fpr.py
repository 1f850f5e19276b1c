"""Feature-metric alignment: its derivatives against autograd, its way to the true pose, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ros_world
import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.config import LocalizerConfig, NreConfig, with_values
from nre_ros.errors import ConfigError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Camera, CellGrid, Pose, pose_error
from nre_ros.localization import Localizer
from nre_ros.mapping import Map
from nre_ros.nre import FineStage, coarse_loss_maps, estimate_pose
from nre_ros.nre.fpr import FeatureLevel, Reader, align_features

CAMERA = Camera(320, 240, 260.0, 255.0, 160.0, 118.0, distortion=(0.05, -0.02, 0.001, 0.001))
TRUTH = Pose.exp(torch.tensor([0.1, -0.2, 0.05, 0.3, -0.1, 0.2], dtype=torch.float64))
"""cam_from_map."""
POINTS = 200


def landmarks() -> Tensor:
    """In the camera's view, 2 to 6 units away; in the map frame."""
    generator = torch.Generator().manual_seed(1)
    uv_px = torch.rand((POINTS, 2), generator=generator, dtype=torch.float64) * torch.tensor([300.0, 220.0]) + 10
    depth = 2 + 4 * torch.rand((POINTS, 1), generator=generator, dtype=torch.float64)
    bearing = CAMERA.unproject(uv_px)
    return TRUTH.inverse().transform(bearing / bearing[:, 2:] * depth)


def smooth_level(stride: int, waves_px: float, channels: int = 24) -> FeatureLevel:
    """Waves over the image, as long as ``waves_px`` on average; descriptors are what the true pose reads."""
    generator = torch.Generator().manual_seed(stride)
    grid = CellGrid(stride, (stride - 1) / 2)
    rows, columns = torch.meshgrid(
        grid.pixel_from_cell(torch.arange(240 // stride)),
        grid.pixel_from_cell(torch.arange(320 // stride)),
        indexing="ij",
    )
    angle = torch.rand(channels, generator=generator) * 2 * torch.pi
    frequency = 2 * torch.pi / waves_px * (0.6 + 0.8 * torch.rand(channels, generator=generator))
    phase = torch.rand(channels, generator=generator) * 2 * torch.pi
    along = angle.cos()[:, None, None] * columns + angle.sin()[:, None, None] * rows
    values = F.normalize((along * frequency[:, None, None] + phase[:, None, None]).sin(), dim=0)
    blank = FeatureLevel(values, grid, torch.zeros(POINTS, channels))
    seen = Reader(blank).residuals(landmarks(), CAMERA, TRUTH)
    return replace(blank, descriptors=seen.difference)


def moved(rotation: float, distance: float) -> Pose:
    twist = torch.tensor([rotation, -rotation, rotation, distance, distance, -distance], dtype=torch.float64)
    return Pose.exp(twist) @ TRUTH


def test_residual_and_jacobian_are_those_of_autograd() -> None:
    """On features that are linear in the pixel, central differences are the derivative."""
    generator = torch.Generator().manual_seed(0)
    slope = torch.randn((5, 2), generator=generator, dtype=torch.float64) / 100
    grid, xyz_map = CellGrid(4, 1.5), landmarks()
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    cells = torch.stack([columns, rows]).double()
    values = torch.einsum("ck,khw->chw", slope, grid.pixel_from_cell(cells))
    level = FeatureLevel(values, grid, torch.randn((POINTS, 5), generator=generator, dtype=torch.float64))
    here = Reader(level).residuals(xyz_map, CAMERA, TRUTH)

    def difference(twist: Tensor) -> Tensor:
        uv_px, _ = CAMERA.project((Pose.exp(twist) @ TRUTH).transform(xyz_map))
        return uv_px @ slope.T - level.descriptors

    start = torch.zeros(6, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(difference, start)
    inside = here.inside
    assert int(inside.sum()) > 150
    torch.testing.assert_close(here.difference[inside], difference(start)[inside])
    torch.testing.assert_close((here.gradient @ here.jacobian)[inside], expected[inside])


def test_the_slope_is_that_of_the_robust_loss() -> None:
    """The sum of rho over the landmarks, by finite differences of the pose; smooth features, so bilinear is enough."""
    reader, xyz_map, pose = Reader(smooth_level(2, 120)), landmarks(), moved(0.004, 0.01)
    here = reader.residuals(xyz_map, CAMERA, pose)
    _, slope = reader.normal_equations(here)
    numeric = []
    for axis in torch.eye(6, dtype=torch.float64) * 1e-4:
        sides = [reader.residuals(xyz_map, CAMERA, pose.perturb(sign * axis)) for sign in (1, -1)]
        steady = sides[0].inside & sides[1].inside
        assert torch.equal(steady, here.inside)
        ahead, behind = (reader.loss(side)[steady].double().sum() for side in sides)
        numeric.append((ahead - behind) / 2e-4)
    expected = torch.stack(numeric) * reader.scale2 / 2  # rho of x, and x in units of the scale
    assert (slope - expected).norm() < 0.03 * expected.norm()


def test_converges_from_some_pixels_away() -> None:
    levels = [smooth_level(8, 120), smooth_level(2, 40)]
    start = moved(0.02, 0.03)
    found = align_features(levels, landmarks(), CAMERA, start)
    assert found is not None
    before, after = (pose_error(p.inverse(), TRUTH.inverse()) for p in (start, found))
    assert before[0] > 1.5 and after[0] < 0.02
    assert after[1] < 0.002


def test_outliers_and_raw_lengths_change_little() -> None:
    level = smooth_level(2, 60)
    wrong = level.descriptors.clone()
    wrong[::4] = F.normalize(torch.randn(wrong[::4].shape, generator=torch.Generator().manual_seed(4)), dim=1)
    spoiled = replace(level, descriptors=wrong)
    raw = replace(spoiled, descriptors=7 * wrong, values=7 * level.values)
    ends = [align_features([one], landmarks(), CAMERA, moved(0.005, 0.01)) for one in (spoiled, raw)]
    for end in ends:
        assert end is not None
        assert pose_error(end.inverse(), TRUTH.inverse())[0] < 0.05
    assert ends[0] is not None and ends[1] is not None
    torch.testing.assert_close(ends[0].matrix(), ends[1].matrix(), atol=1e-4, rtol=0)


def test_doubted_descriptors_do_not_count() -> None:
    """Half of the landmarks expect what lies some pixels away; with no certainty they pull at nothing."""
    level = smooth_level(2, 60)
    elsewhere = Reader(replace(level, descriptors=torch.zeros_like(level.descriptors)))
    shifted = elsewhere.residuals(landmarks(), CAMERA, moved(0.006, 0.0)).difference
    certainty = (torch.arange(POINTS) % 2).float()
    mixed = torch.where(certainty[:, None] > 0, level.descriptors, shifted)
    confidence = torch.ones(level.values.shape[-2:])
    sure = replace(level, descriptors=mixed, certainty=certainty, confidence=confidence)
    ends = [
        align_features([one], landmarks(), CAMERA, moved(0.003, 0.0)) for one in (sure, replace(sure, certainty=None))
    ]
    errors = [float(pose_error(end.inverse(), TRUTH.inverse())[0]) for end in ends if end is not None]
    assert errors[0] < 0.02 < errors[1]


def test_damping_holds_the_pose_where_it_is_strong() -> None:
    level = replace(smooth_level(2, 60), damping=torch.tensor([1e-3] * 3 + [1e9] * 3))
    start = moved(0.004, 0.01)
    found = align_features([level], landmarks(), CAMERA, start)
    assert found is not None
    # exp(x) @ start: the position in the camera's frame moves only by the rotation
    twist = (found @ start.inverse()).log()
    assert float(twist[3:].norm()) < 1e-4 < float(twist[:3].norm())


def test_too_few_landmarks_in_view_give_no_pose() -> None:
    behind = Pose.exp(torch.tensor([0, 3.0, 0, 0, 0, 0], dtype=torch.float64)) @ TRUTH
    assert align_features([smooth_level(8, 120)], landmarks(), CAMERA, behind) is None


def estimate(config: NreConfig, fine: object = None):
    """From loss maps of the same features; near unique descriptors."""
    coarse, level = smooth_level(8, 60), smooth_level(2, 40)
    maps = coarse_loss_maps(coarse.descriptors, coarse.values, 60.0, coarse.grid)
    stage = fine or FineStage(level.descriptors, level.values, 60.0, level.grid)
    return estimate_pose(landmarks(), CAMERA, maps, stage, config)  # type: ignore[arg-type]


def test_the_estimator_refines_by_features_on_request() -> None:
    answers = {name: estimate(NreConfig(refinement=name, msac_iterations=500)) for name in ("nre", "fpr")}
    for answer in answers.values():
        assert answer.poses is not None and answer.covariance is not None
        assert pose_error(answer.poses[0].inverse(), TRUTH.inverse())[0] < 0.1
        assert float(answer.fine_share.mean()) > 0.3
    assert not torch.equal(answers["nre"].poses[0].matrix(), answers["fpr"].poses[0].matrix())
    none = estimate(NreConfig(refinement="fpr", fine_rounds=0, msac_iterations=500))
    assert float(none.fine_share.sum()) == 0


def test_loss_maps_without_features_cannot_be_aligned() -> None:
    level = smooth_level(2, 40)
    stage = FineStage(level.descriptors, level.values, 60.0, level.grid)

    class MapsAlone:
        grid = stage.grid
        maps = stage.maps

    with pytest.raises(ConfigError, match="refinement nre"):
        estimate(NreConfig(refinement="fpr", msac_iterations=500), MapsAlone())


def test_the_localizer_takes_it_from_its_parameters(corner_map: Map, network: FeatureNetwork) -> None:
    config = with_values(LocalizerConfig(), ros_world.QUICK | {"nre.refinement": "fpr"})
    frame = ros_world.frame(2.6, 0, noise_seed=7)
    answer = Localizer(corner_map, network, config).localize(frame.image_rgb, frame.camera)
    assert answer.accepted, answer.reason
    assert answer.map_from_cam is not None and frame.map_from_cam is not None
    degrees, metres = pose_error(answer.map_from_cam, frame.map_from_cam)
    assert degrees < 0.3
    assert metres < 0.015
