"""From an image to a pose in a real map: where it was taken, or an honest no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import ros_world
import torch

from nre_ros.config import LocalizerConfig, with_values
from nre_ros.errors import CalibrationError, MapError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import pose_error
from nre_ros.localization import Localization, Localizer, Status
from nre_ros.localization.acceptance import judge
from nre_ros.localization.calibration import SHIPPED
from nre_ros.mapping import Map
from nre_ros.nre import Estimate, Outcome

QUICK = with_values(LocalizerConfig(), ros_world.QUICK)
HELD_OUT = (0.5, 2.6, 4.4)


@pytest.fixture(scope="module")
def localizer(corner_map: Map, network: FeatureNetwork) -> Localizer:
    return Localizer(corner_map, network, QUICK)


@pytest.fixture(scope="module")
def answer(localizer: Localizer) -> Localization:
    """To the first held-out view."""
    frame = ros_world.frame(HELD_OUT[0], 0, noise_seed=1)
    return localizer.localize(frame.image_rgb, frame.camera)


@pytest.mark.parametrize("index", HELD_OUT)
def test_held_out_views_are_found(localizer: Localizer, index: float) -> None:
    frame = ros_world.frame(index, 0, noise_seed=7)
    answer = localizer.localize(frame.image_rgb, frame.camera)
    assert answer.accepted, answer.reason
    assert frame.map_from_cam is not None and answer.map_from_cam is not None
    degrees, metres = pose_error(answer.map_from_cam, frame.map_from_cam)
    assert degrees < 0.3
    assert metres < 0.015


def test_default_parameters_serve_too(corner_map: Map, network: FeatureNetwork, answer: Localization) -> None:
    frame = ros_world.frame(HELD_OUT[0], 0, noise_seed=1)
    found = Localizer(corner_map, network, LocalizerConfig()).localize(frame.image_rgb, frame.camera)
    assert found.accepted and found.map_from_cam is not None and frame.map_from_cam is not None
    assert pose_error(found.map_from_cam, frame.map_from_cam)[1] < 0.01


def test_same_image_same_answer(corner_map: Map, network: FeatureNetwork, answer: Localization) -> None:
    """Also after other images, and by another localizer."""
    localizer = Localizer(corner_map, network, QUICK)
    other, frame = ros_world.frame(3, 0), ros_world.frame(HELD_OUT[0], 0, noise_seed=1)
    localizer.localize(other.image_rgb, other.camera)
    again = localizer.localize(frame.image_rgb, frame.camera)
    assert again.map_from_cam is not None and answer.map_from_cam is not None
    assert torch.equal(again.map_from_cam.matrix(), answer.map_from_cam.matrix())
    assert again.covariance is not None and answer.covariance is not None
    assert torch.equal(again.covariance, answer.covariance)
    assert (again.score, again.status, again.keyframes) == (answer.score, answer.status, answer.keyframes)


def test_an_answer_is_whole(localizer: Localizer, answer: Localization) -> None:
    covariance, points = answer.covariance, answer.points
    assert covariance is not None and points is not None and answer.map_from_cam is not None
    assert torch.equal(covariance, covariance.T)
    assert bool((torch.linalg.eigvalsh(covariance) > 0).all())
    assert set(answer.keyframes) <= set(range(localizer.map.keyframe_count)) and answer.keyframes
    count = len(points.xyz_map)
    assert count == QUICK.nre.max_points
    assert points.uv_px.shape == (count, 2) and points.loss.shape == (count,)
    assert ((points.loss >= 0) & (points.loss <= 1)).all()
    uv_px, visible = ros_world.CAMERA.project(
        answer.map_from_cam.inverse().transform(torch.from_numpy(points.xyz_map).double())
    )
    np.testing.assert_array_equal(np.isnan(points.uv_px).any(1), ~visible.numpy())
    np.testing.assert_allclose(points.uv_px[visible.numpy()], uv_px[visible].numpy(), atol=1e-3)
    parts = {name: value for name, value in answer.timings_ms.items() if name != "total"}
    assert 0 < sum(parts.values()) <= answer.timings_ms["total"]


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def another_place(size: tuple[int, int]) -> np.ndarray:
    """As textured as the corner, but of shapes and colours that it does not have."""
    rng = np.random.default_rng(11)
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    for _ in range(200):
        centre = tuple(int(v) for v in rng.integers(0, size))
        colour = [int(v) for v in rng.integers(0, 256, 3)]
        cv2.circle(image, centre, int(rng.integers(3, 20)), colour, int(rng.integers(1, 4)))
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def grey(size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), 128, np.uint8)


@pytest.mark.parametrize("picture", [noise, another_place, grey])
def test_what_the_map_does_not_hold_is_not_accepted(
    localizer: Localizer, picture: Callable[[tuple[int, int]], np.ndarray]
) -> None:
    camera = ros_world.CAMERA
    answer = localizer.localize(picture((camera.width, camera.height)), camera)
    assert answer.status in (Status.REJECTED, Status.NO_POSE)
    assert answer.reason
    assert answer.score < 0.5
    assert answer.map_from_cam is None or answer.map_from_cam.is_finite()


def test_landmarks_in_one_corner_of_the_image_do_not_fix_a_pose() -> None:
    """However well they are explained, and however sure the covariance is."""
    everywhere = torch.arange(128) % 64
    estimate = Estimate(
        Outcome.OK,
        rivalry=torch.ones(1),
        covariance=1e-8 * torch.eye(6, dtype=torch.float64),
        fine_share=torch.full((128,), 0.6),
        in_view=torch.ones(128, dtype=torch.bool),
        part=everywhere,
    )
    assert judge(estimate, 2.0, SHIPPED, 1e-3).accepted
    verdict = judge(replace(estimate, part=everywhere % 3), 2.0, SHIPPED, 1e-3)
    assert not verdict.accepted and "lie in 3.0 of 64 parts of the image" in verdict.reason


def test_a_larger_image_gives_the_same_pose(corner_map: Map, network: FeatureNetwork) -> None:
    """Reduced to the limit before the network; projections are reported in pixels of the image that was given."""
    frame = ros_world.frame(HELD_OUT[0], 0)
    camera = frame.camera.resized(960, 720)
    config = with_values(QUICK, {"max_image_side": 320})
    image = cv2.resize(frame.image_rgb, (960, 720), interpolation=cv2.INTER_CUBIC)
    answer = Localizer(corner_map, network, config).localize(image, camera)
    assert answer.accepted and answer.map_from_cam is not None and frame.map_from_cam is not None
    degrees, metres = pose_error(answer.map_from_cam, frame.map_from_cam)
    assert degrees < 0.3 and metres < 0.015
    assert answer.points is not None
    assert np.nanmax(answer.points.uv_px[:, 0]) > 500


def test_an_image_of_another_size_is_refused(localizer: Localizer) -> None:
    image = np.zeros((240, 322, 3), np.uint8)
    with pytest.raises(CalibrationError, match="image is 322x240 pixels, the calibration is for 320x240"):
        localizer.localize(image, ros_world.CAMERA)


def test_a_network_that_did_not_make_the_map_is_refused(corner_map: Map) -> None:
    other = SimpleNamespace(name="compact", weights_hash="f" * 16, device=torch.device("cpu"))
    with pytest.raises(MapError, match="was made by network compact"):
        Localizer(corner_map, other, QUICK)
