"""The estimator from given first poses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ros_world
import torch

from nre_ros.config import LocalizerConfig
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Pose, pose_error
from nre_ros.localization.candidates import describe, landmarks_of
from nre_ros.mapping import Map
from nre_ros.nre import Estimate, FineStage, Outcome, coarse_loss_maps, estimate_pose


@pytest.fixture(scope="module")
def truth() -> Pose:
    return ros_world.pose(0.5).inverse()


@pytest.fixture(scope="module")
def estimate_from(corner_map: Map, network: FeatureNetwork):  # type: ignore[no-untyped-def]
    frame = ros_world.frame(0.5, 0, noise_seed=1)
    with torch.inference_mode():
        seen = network.extract(frame.image_rgb)
    found = describe(corner_map, landmarks_of(corner_map, (0, 1, 2))[:300], seen, network.device)
    coarse = coarse_loss_maps(found.coarse, seen.coarse.values, seen.coarse.inverse_temperature, seen.coarse.grid)
    fine = FineStage(found.fine, seen.fine.values, seen.fine.inverse_temperature, seen.fine.grid)

    def estimate(starts: Pose | None, coarse_levels: int | None = None, **nre: object) -> tuple[Estimate, list[str]]:
        config = replace(LocalizerConfig().nre, **nre)
        stages: list[str] = []
        with torch.inference_mode():
            answer = estimate_pose(
                found.xyz_map, frame.camera, coarse, fine, config, stages.append, starts, coarse_levels
            )
        return answer, stages

    return estimate


def test_a_start_nearby_gives_the_pose_that_sampling_gives(estimate_from, truth: Pose) -> None:  # type: ignore[no-untyped-def]
    sampled, stages = estimate_from(None)
    assert stages[0] == "msac"
    twists = torch.tensor([[0.01, 0, 0, 0, 0.02, 0], [0, 2.0, 0, 5, 0, 0]], dtype=torch.float64)
    started, stages = estimate_from(truth[None].perturb(twists))
    assert stages[0] == "starts" and "msac" not in stages
    assert started.outcome is Outcome.OK
    degrees, metres = pose_error(started.poses[0].inverse(), sampled.poses[0].inverse())
    assert float(degrees) < 0.02 and float(metres) < 0.002
    torch.testing.assert_close(started.covariance, sampled.covariance, rtol=0.2, atol=1e-6)


@pytest.mark.parametrize("coarse_levels", [0, 1])
def test_a_start_nearby_needs_few_levels_of_the_coarse_maps_or_none(  # type: ignore[no-untyped-def]
    estimate_from, truth: Pose, coarse_levels: int
) -> None:
    near = truth[None].perturb(torch.tensor([[0.003, -0.002, 0.003, 0.01, 0.01, -0.01]], dtype=torch.float64))
    whole, _ = estimate_from(near)
    short, _ = estimate_from(near, coarse_levels)
    degrees, metres = pose_error(short.poses[0].inverse(), whole.poses[0].inverse())
    assert float(degrees) < 0.02 and float(metres) < 0.002
    assert len(short.rivalry) == 1 and float(short.rivalry[0]) == 1
    torch.testing.assert_close(short.covariance, whole.covariance, rtol=0.2, atol=1e-6)


@pytest.mark.parametrize("nre", [{"fine_rounds": 0}, {"refinement": "fpr"}])
def test_where_no_fine_windows_follow_the_coarse_maps_are_climbed_all_the_same(  # type: ignore[no-untyped-def]
    estimate_from, truth: Pose, nre: dict[str, object]
) -> None:
    near = truth[None].perturb(torch.tensor([[0.003, -0.002, 0.003, 0.01, 0.01, -0.01]], dtype=torch.float64))
    whole, _ = estimate_from(near, **nre)
    asked_for_none, _ = estimate_from(near, 0, **nre)
    assert torch.equal(whole.poses.translation, asked_for_none.poses.translation)


def test_a_start_far_off_does_not_pass_for_the_pose(estimate_from, truth: Pose) -> None:  # type: ignore[no-untyped-def]
    far = truth.perturb(torch.tensor([0, 0.6, 0, 1.0, 0, 0], dtype=torch.float64))
    good, _ = estimate_from(truth[None])
    for coarse_levels in (None, 0, 1):
        bad, _ = estimate_from(far[None], coarse_levels)
        assert float(bad.gains[0]) < 0.5 * float(good.gains[0])


def test_starts_that_are_one_place_are_one_hypothesis(estimate_from, truth: Pose) -> None:  # type: ignore[no-untyped-def]
    twists = 1e-3 * torch.randn((10, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    many, _ = estimate_from(truth[None].perturb(twists))
    assert len(many.gains) == 1
