"""Queries in a batch, other devices and dtypes: the same answers; and gradients to train with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loss_map_scenes import CAMERA, Scene, fine_stage, make_scene
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import CellGrid, Pose, pose_error
from nre_ros.nre import Estimate, FineStage, LossMaps, Outcome, coarse_loss_maps, estimate_pose, estimate_poses

CONFIG = NreConfig()
STRIDE, FINE_STRIDE = 16, 4
CONFIGS = {
    "default": CONFIG,
    "use_re": replace(CONFIG, use_re=True),
    "skip_gnc": replace(CONFIG, skip_gnc=True),
    "original": replace(CONFIG, conventions="original"),
}
each_device = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    ],
)


def scene(seed: int, points: int = 60, wrong: float = 0.3) -> Scene:
    return make_scene(seed, points, wrong, STRIDE)


def fine_of(scene: Scene, seed: int) -> FineStage:
    return fine_stage(scene, seed, FINE_STRIDE)


def estimate(scene: Scene, fine: FineStage | None = None, config: NreConfig = CONFIG) -> Estimate:
    return estimate_pose(scene.xyz_map, CAMERA, scene.coarse, fine, config)


def stacked(scenes: list[Scene]) -> LossMaps:
    gain = torch.stack([each.coarse.gain for each in scenes])
    return replace(scenes[0].coarse, gain=gain, origin_cells=torch.stack([each.coarse.origin_cells for each in scenes]))


def estimate_together(
    scenes: list[Scene], fine: list[FineStage] | None = None, config: NreConfig = CONFIG
) -> list[Estimate]:
    return estimate_poses(torch.stack([each.xyz_map for each in scenes]), CAMERA, stacked(scenes), fine, config)


def filled_up(scene: Scene, points: int) -> Scene:
    """With maps of no gain, of points at the map's origin."""
    more = points - len(scene.coarse)
    maps = replace(
        scene.coarse,
        gain=torch.cat([scene.coarse.gain, torch.zeros((more, *scene.coarse.gain.shape[1:]))]),
        origin_cells=torch.cat([scene.coarse.origin_cells, torch.zeros((more, 2), dtype=torch.long)]),
    )
    return replace(scene, xyz_map=torch.cat([scene.xyz_map, torch.zeros((more, 3))]), coarse=maps)


def poses_of(estimate: Estimate) -> Pose:
    assert estimate.outcome is Outcome.OK and estimate.poses is not None
    return estimate.poses


def apart(one: Estimate, other: Estimate) -> tuple[float, float]:
    """Degrees and units between the best poses."""
    degrees, distance = pose_error(poses_of(one)[0].inverse(), poses_of(other)[0].inverse())
    return float(degrees), float(distance)


def assert_same(one: Estimate, other: Estimate, most: float = 1e-5) -> None:
    """Up to ``most`` degrees and units of rounding: products of matrices are summed in another order in a batch."""
    assert one.outcome is other.outcome and one.unusable == other.unusable
    assert len(poses_of(one).translation) == len(poses_of(other).translation)
    assert max(apart(one, other)) < most
    torch.testing.assert_close(one.gains, other.gains, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.covariance, other.covariance, rtol=0.01, atol=1e-9)
    torch.testing.assert_close(one.coarse_share, other.coarse_share, rtol=0, atol=10 * most)
    torch.testing.assert_close(one.fine_share, other.fine_share, rtol=0, atol=10 * most)
    assert torch.equal(one.in_view, other.in_view)  # type: ignore[arg-type]


@pytest.mark.parametrize("with_fine", [False, True], ids=["coarse", "fine"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_answers_as_its_queries_alone(name: str, with_fine: bool) -> None:
    """Whether they are equally hard or not."""
    scenes = [scene(seed, wrong=wrong) for seed, wrong in enumerate((0.0, 0.3, 0.6))]
    fine = [fine_of(each, seed) for seed, each in enumerate(scenes)] if with_fine else None
    together = estimate_together(scenes, fine, CONFIGS[name])
    most = 1e-3 if name == "original" else 1e-5  # its search ends where single precision finds no gain
    for i, each in enumerate(scenes):
        assert_same(together[i], estimate(each, fine[i] if fine else None, CONFIGS[name]), most)
        assert apart(together[i], together[i - 1])[0] > 1  # they are not one answer thrice


@pytest.mark.parametrize("with_fine", [False, True], ids=["coarse", "fine"])
def test_a_query_with_fewer_points_is_filled_up(with_fine: bool) -> None:
    """Triplets are drawn from a share of all points, so that the search takes another course; it ends in one place."""
    scenes = [scene(0, 60), scene(1, 50, wrong=0.1), scene(2, 35, wrong=0.0)]
    fine = [fine_of(each, seed) for seed, each in enumerate(scenes)] if with_fine else None
    filled = [filled_up(each, 60) for each in scenes]
    fine_filled = None
    if fine:
        fine_filled = [
            replace(each, descriptors=torch.cat([each.descriptors, torch.zeros((60 - len(each.descriptors), 32))]))
            for each in fine
        ]
    together = estimate_together(filled, fine_filled)
    for i, each in enumerate(scenes):
        alone = estimate(each, fine[i] if fine else None)
        degrees, distance = apart(together[i], alone)
        assert degrees < 0.02 and distance < 0.002
        torch.testing.assert_close(together[i].covariance, alone.covariance, rtol=0.1, atol=1e-9)
        share = together[i].coarse_share
        assert share is not None and share.shape == (60,) and not bool(share[len(each.coarse) :].any())


@pytest.mark.parametrize("with_fine", [False, True], ids=["coarse", "fine"])
def test_a_hopeless_query_fails_alone(with_fine: bool) -> None:
    good = [scene(seed) for seed in range(2)]
    fine = [fine_of(each, seed) for seed, each in enumerate(good)]
    flat = replace(good[0], coarse=replace(good[0].coarse, gain=torch.zeros_like(good[0].coarse.gain)))
    one_place = replace(good[1], xyz_map=torch.ones_like(good[1].xyz_map))
    not_numbers = replace(good[1], xyz_map=torch.full_like(good[1].xyz_map, torch.nan))
    together = estimate_together(
        [good[0], flat, one_place, not_numbers, good[1]],
        [fine[0], fine[0], fine[1], fine[1], fine[1]] if with_fine else None,
    )
    outcomes = [each.outcome for each in together]
    assert outcomes == [Outcome.OK, Outcome.FLAT_MAPS, Outcome.NO_HYPOTHESIS, Outcome.FLAT_MAPS, Outcome.OK]
    assert [each.poses is None for each in together] == [False, True, True, True, False]
    assert [each.unusable for each in together] == [0, 0, 0, 60, 0]
    for found, alone, its_fine in zip((together[0], together[4]), good, fine, strict=True):
        assert_same(found, estimate(alone, its_fine if with_fine else None))


def test_too_few_points_fail_together() -> None:
    few = [replace(each, coarse=each.coarse.select(torch.arange(3)), xyz_map=each.xyz_map[:3]) for each in [scene(0)]]
    assert [each.outcome for each in estimate_together(few * 2)] == [Outcome.TOO_FEW_POINTS] * 2


@pytest.mark.parametrize("of_gain", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_points", [torch.float32, torch.float64])
def test_dtypes_change_the_pose_by_no_more_than_their_rounding(of_gain: torch.dtype, of_points: torch.dtype) -> None:
    one = scene(3)
    fine = fine_of(one, 3)
    other = replace(
        one, xyz_map=one.xyz_map.to(of_points), coarse=replace(one.coarse, gain=one.coarse.gain.to(of_gain))
    )
    for its_fine, degrees_most, distance_most in ((None, 0.02, 0.002), (fine, 0.005, 0.0005)):
        found = estimate(other, its_fine)
        degrees, distance = apart(found, estimate(one, its_fine))
        assert degrees < degrees_most and distance < distance_most
        assert poses_of(found).rotation.dtype is torch.float64


def on(device: str, scene: Scene) -> Scene:
    maps = scene.coarse
    maps = replace(maps, gain=maps.gain.to(device), origin_cells=maps.origin_cells.to(device))
    return replace(scene, xyz_map=scene.xyz_map.to(device), coarse=maps)


@each_device
@pytest.mark.parametrize("with_fine", [False, True], ids=["coarse", "fine"])
def test_every_device_gives_the_same_answer_twice_and_the_same_place(device: str, with_fine: bool) -> None:
    """The same seed gives the same bits on a CPU; on CUDA sums may take another order, and all triplets are drawn."""
    scenes = [scene(seed) for seed in range(2)]
    fine = [fine_of(each, seed) for seed, each in enumerate(scenes)]
    there = [replace(f, descriptors=f.descriptors.to(device), features=f.features.to(device)) for f in fine]
    moved = [on(device, each) for each in scenes]
    first, second = (estimate_together(moved, there if with_fine else None) for _ in range(2))
    for i, each in enumerate(scenes):
        poses, again = poses_of(first[i]), poses_of(second[i])
        assert poses.rotation.device.type == device
        torch.testing.assert_close(
            poses.matrix(), again.matrix(), rtol=0, atol=0 if device == "cpu" else 1e-5, msg="not deterministic"
        )
        here = poses_of(estimate(each, fine[i] if with_fine else None))[0]
        degrees, distance = pose_error(poses[0].to("cpu").inverse(), here.inverse())
        assert degrees < 0.02 and distance < 0.002


def test_gradients_flow_from_what_maps_say_to_descriptors_and_features() -> None:
    """The loss of training: the NRE (Eq. 6) of true projections, inside the image, at its border and beyond."""
    rng = torch.Generator().manual_seed(0)
    xy = torch.tensor([[[2.3, 1.7], [0.2, 3.6], [6.3, 2.2], [-3.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    features = torch.nn.functional.normalize(torch.randn((6, 5, 7), generator=rng, dtype=torch.float64), dim=0)
    features.requires_grad_()
    # like what is seen there, so that no gain is truncated
    descriptors = features.detach()[:, [2, 4, 2, 2], [2, 0, 6, 0]].T.contiguous().requires_grad_()

    def gains(descriptors: Tensor, features: Tensor, xy: Tensor) -> Tensor:
        return coarse_loss_maps(descriptors, features, 3.0, CellGrid(8, 3.5)).read(xy)

    assert torch.autograd.gradcheck(gains, (descriptors, features, xy))
    gains(descriptors, features, xy).sum().backward()
    assert descriptors.grad is not None and features.grad is not None
    assert bool(descriptors.grad[:3].any(1).all()) and bool(features.grad.any())
    assert not bool(descriptors.grad[3].any())  # beyond the image nothing is said, and nothing learnt
