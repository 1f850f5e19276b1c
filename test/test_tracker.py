"""Tracking: from an expected pose to the same answer as a search of the whole map, or an honest no."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
import torch

from nre_ros.config import LocalizerConfig, with_values
from nre_ros.evaluation.bench import time_tracking
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Pose, pose_error
from nre_ros.localization import Localization, Localizer, Search, Status
from nre_ros.localization.prior import Prior
from nre_ros.localization.tracker import Motion, Tracker
from nre_ros.mapping import Map, load_map

MOTION = Motion(translation_noise=0.1, rotation_noise=0.05, max_speed=1.0, max_turn_rad=0.8)
FADED = 30.0
SURE = (math.radians(0.3), 0.01)
FRAMES = [ros_world.frame(0.5 + 0.1 * i, 10**9 + i * 10**8, noise_seed=i) for i in range(5)]


def prior_at(pose: Pose, rotation_rad: float = SURE[0], translation: float = SURE[1]) -> Prior:
    return Prior.isotropic(pose, rotation_rad, translation)


def shifted(pose: Pose, x: float) -> Pose:
    return Pose(pose.rotation, pose.translation + torch.tensor([x, 0, 0], dtype=torch.float64))


def error(found: Localization, truth: Pose | None) -> tuple[float, float]:
    assert found.map_from_cam is not None and truth is not None
    degrees, metres = pose_error(found.map_from_cam, truth)
    return float(degrees), float(metres)


@pytest.fixture(scope="module")
def localizer(corner_map: Map, network: FeatureNetwork) -> Localizer:
    return Localizer(corner_map, network, with_values(LocalizerConfig(), ros_world.QUICK))


@pytest.fixture(scope="module")
def twins(corner_map: Map, network: FeatureNetwork, tmp_path_factory: pytest.TempPathFactory) -> Localizer:
    folder: Path = ros_world.twin_map(tmp_path_factory.mktemp("twins"), corner_map)
    return Localizer(load_map(folder, network), network, LocalizerConfig())


@pytest.mark.parametrize("off", [(0.0, 0.0), (0.6, 0.02), (3.0, 0.1)])
def test_tracking_finds_the_pose_from_a_prior_that_says_how_far_off_it_is(
    localizer: Localizer, off: tuple[float, float]
) -> None:
    frame = FRAMES[0]
    assert frame.map_from_cam is not None
    angle, metres = math.radians(off[0]), off[1]
    twist = torch.tensor([0, angle, 0, metres, 0, 0], dtype=torch.float64)
    prior = prior_at(frame.map_from_cam @ Pose.exp(twist), max(angle, SURE[0]), max(metres, SURE[1]))
    found = localizer.track(localizer.see(frame.image_rgb, frame.camera), prior)
    assert found.accepted, found.reason
    assert found.search is Search.TRACK
    degrees, metres = error(found, frame.map_from_cam)
    assert degrees < 0.3 and metres < 0.015


def test_tracking_answers_within_the_bounds_of_its_prior_alone(localizer: Localizer) -> None:
    frame = FRAMES[0]
    assert frame.map_from_cam is not None
    view = localizer.see(frame.image_rgb, frame.camera)
    for x in (0.4, 1.0, 30.0):
        found = localizer.track(view, prior_at(shifted(frame.map_from_cam, x)))
        assert not found.accepted and found.reason
    unsure = localizer.track(view, prior_at(frame.map_from_cam, 1.0, 5.0))
    assert unsure.status is Status.NO_POSE and "uncertain" in unsure.reason


def test_tracking_does_not_accept_what_the_map_does_not_hold(localizer: Localizer) -> None:
    camera = ros_world.CAMERA
    image = np.random.default_rng(5).integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
    for frame in FRAMES[:3]:
        assert frame.map_from_cam is not None
        assert not localizer.track(localizer.see(image, camera), prior_at(frame.map_from_cam)).accepted


def test_a_run_is_tracked_without_drift_and_as_well_as_it_is_searched(localizer: Localizer) -> None:
    tracker, drift = Tracker(localizer), 0.0
    for index, frame in enumerate(FRAMES):
        drift += 0.005
        assert frame.map_from_cam is not None
        odometry = shifted(frame.map_from_cam, 3 + drift)
        view = localizer.see(frame.image_rgb, frame.camera)
        found = tracker.find(view, frame.stamp_ns, odometry, "auto", MOTION)
        assert found.accepted and found.search is (Search.TRACK if index else Search.GLOBAL)
        assert tracker.objection(found, frame.stamp_ns, odometry, 2, MOTION) == ""
        assert error(found, frame.map_from_cam)[1] < 0.015


def test_a_wrong_expectation_falls_back_to_the_whole_map_with_the_same_image(localizer: Localizer) -> None:
    frame = FRAMES[0]
    assert frame.map_from_cam is not None
    tracker = Tracker(localizer)
    tracker.expect(prior_at(shifted(frame.map_from_cam, 0.5)), frame.stamp_ns, None)
    view = localizer.see(frame.image_rgb, frame.camera)
    found = tracker.find(view, frame.stamp_ns, None, "auto", MOTION)
    assert found.accepted and found.search is Search.GLOBAL
    assert {"neighbourhood", "msac"} <= found.timings_ms.keys()
    held = tracker.find(view, frame.stamp_ns, None, "track", MOTION)
    assert not held.accepted, "in mode track nothing else is searched"


def test_a_wrong_given_pose_costs_the_search_around_it_once(localizer: Localizer) -> None:
    """The images that must agree before it is given up are looked for anywhere at once."""
    start = FRAMES[0].map_from_cam
    assert start is not None
    tracker = Tracker(localizer)
    tracker.expect(prior_at(shifted(start, 0.5)), FRAMES[0].stamp_ns, start)
    heard = []
    for frame in FRAMES[:4]:
        view = localizer.see(frame.image_rgb, frame.camera)
        found = tracker.find(view, frame.stamp_ns, frame.map_from_cam, "auto", MOTION)
        assert found.accepted and error(found, frame.map_from_cam)[1] < 0.02
        objection = tracker.objection(found, frame.stamp_ns, frame.map_from_cam, 2, MOTION)
        heard.append(("neighbourhood" in found.timings_ms, "msac" in found.timings_ms, objection != ""))
    assert heard == [(True, True, True), (False, True, True), (False, True, False), (True, False, False)]


def test_tracking_is_timed_beside_the_whole_map(localizer: Localizer) -> None:
    """The first image is searched for, the others are tracked; only these count."""
    told = time_tracking(localizer, FRAMES, 2)
    assert told is not None
    assert told.asked == 2 * len(FRAMES) and told.tracked == 2 * (len(FRAMES) - 1)
    assert told.error_deg < 0.3 and told.whole_map_error_deg < 0.3
    assert 0 < told.timing.p50 <= told.timing.p95 and 0 < told.whole_map.p50 <= told.whole_map.p95
    assert time_tracking(localizer, FRAMES[:1], 1) is None


def test_a_prior_decides_between_places_that_look_alike(twins: Localizer) -> None:
    frame = FRAMES[0]
    assert frame.map_from_cam is not None
    view = twins.see(frame.image_rgb, frame.camera)
    found = twins.search(view)
    assert not found.accepted and found.ambiguous
    assert found.map_from_cam is not None
    places = [found.map_from_cam, *(p for p, r in zip(found.hypotheses, found.rivalry, strict=True) if r > 0.9)]
    xs = sorted(float(p.translation[0] - frame.map_from_cam.translation[0]) for p in places)
    assert xs == pytest.approx([0, ros_world.TWIN_AWAY_M], abs=0.05)
    for x in (0.0, ros_world.TWIN_AWAY_M):
        near = twins.search_within(view, prior_at(shifted(frame.map_from_cam, x + 0.3), 0.3, 0.5))
        assert near.accepted and not near.ambiguous, near.reason
        assert near.search is Search.WITHIN
        assert error(near, shifted(frame.map_from_cam, x))[1] < 0.02
    nowhere = twins.search_within(view, prior_at(shifted(frame.map_from_cam, 1000.0), 0.3, 0.5))
    assert nowhere.status is Status.NO_POSE and nowhere.map_from_cam is None


@pytest.fixture(scope="module")
def imitation(corner_map: Map, network: FeatureNetwork, tmp_path_factory: pytest.TempPathFactory) -> Localizer:
    """A map with a place that looks much, but not quite, like the true one."""
    folder = ros_world.twin_map(tmp_path_factory.mktemp("imitation"), corner_map, faded=FADED)
    return Localizer(load_map(folder, network), network, LocalizerConfig())


def drive(tracker: Tracker, count: int, recheck_every: int, odometry: bool = True) -> list[tuple[Localization, str]]:
    """What a robot hears that is taken to be at the imitation while it is at the true place."""
    start = FRAMES[0].map_from_cam
    assert start is not None
    tracker.expect(prior_at(shifted(start, ros_world.TWIN_AWAY_M)), FRAMES[0].stamp_ns, start)
    heard = []
    for i in range(count):
        frame = FRAMES[i % 2]  # to and fro
        stamp_ns, odom_from_cam = 10**9 + i * 10**8, frame.map_from_cam if odometry else None
        view = tracker.localizer.see(frame.image_rgb, frame.camera)
        found = tracker.find(view, stamp_ns, odom_from_cam, "auto", MOTION, recheck_every, 2)
        heard.append((found, tracker.objection(found, stamp_ns, odom_from_cam, 2, MOTION) if found.accepted else ""))
    return heard


def whole_map(found: Localization) -> bool:
    return "msac" in found.timings_ms


def test_a_place_that_only_looks_right_is_tracked_until_the_whole_map_is_looked_through(imitation: Localizer) -> None:
    for found, objection in drive(Tracker(imitation), 5, recheck_every=0):
        assert found.accepted and found.search is Search.TRACK and not objection, found.reason
        assert error(found, FRAMES[0].map_from_cam)[1] > 10
    heard = drive(Tracker(imitation), 8, recheck_every=3)
    assert [whole_map(found) for found, _ in heard] == [False] * 2 + [True] * 3 + [False] * 2 + [True]
    assert [bool(objection) for _, objection in heard] == [False] * 2 + [True] * 2 + [False] * 4
    assert all("held back: 20.0" in objection for _, objection in heard[2:4])
    assert all(error(found, FRAMES[0].map_from_cam)[1] < 0.1 for found, _ in heard[4:])


def test_without_odometry_too_a_contradiction_by_the_whole_map_waits_for_others(imitation: Localizer) -> None:
    heard = drive(Tracker(imitation), 6, recheck_every=3, odometry=False)
    assert [bool(objection) for _, objection in heard] == [False] * 2 + [True] * 2 + [False] * 2
    assert error(heard[-1][0], FRAMES[1].map_from_cam)[1] < 0.1


def test_a_right_pose_is_looked_for_in_the_whole_map_now_and_then_and_stays(localizer: Localizer) -> None:
    tracker = Tracker(localizer)
    searched = []
    for i in range(8):
        frame = FRAMES[i % 2]
        view = localizer.see(frame.image_rgb, frame.camera)
        found = tracker.find(view, frame.stamp_ns, frame.map_from_cam, "auto", MOTION, 3, 2)
        assert found.accepted and not tracker.objection(found, frame.stamp_ns, frame.map_from_cam, 2, MOTION)
        assert found.search is (Search.TRACK if i else Search.GLOBAL)
        searched.append(whole_map(found))
    assert searched == [True, False, False, True, False, False, True, False]


@pytest.fixture(scope="module")
def answer(localizer: Localizer) -> Localization:
    found = localizer.localize(FRAMES[0].image_rgb, FRAMES[0].camera)
    assert found.accepted
    return found


def jumped(answer: Localization, x: float) -> Localization:
    assert answer.map_from_cam is not None
    return replace(answer, map_from_cam=shifted(answer.map_from_cam, x))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_jump_waits_for_so_many_that_agree(localizer: Localizer, answer: Localization, count: int) -> None:
    tracker, odometry = Tracker(localizer), Pose.identity()
    assert tracker.objection(answer, 1, odometry, count, MOTION) == ""
    said = [tracker.objection(jumped(answer, 2.0), 2 + i, odometry, count, MOTION) for i in range(count + 2)]
    assert all("held back: 2.00 m" in reason for reason in said[:count])
    assert said[count:] == ["", ""]
    assert "held back" in tracker.objection(answer, 90, odometry, 1, MOTION), "now the new place is the known one"


def test_jumps_that_disagree_with_each_other_are_never_believed(localizer: Localizer, answer: Localization) -> None:
    tracker, odometry = Tracker(localizer), Pose.identity()
    tracker.objection(answer, 1, odometry, 2, MOTION)
    for i in range(1, 8):
        assert "held back" in tracker.objection(jumped(answer, 3.0 * i), 1 + i, odometry, 2, MOTION)
    assert tracker.objection(answer, 20, odometry, 2, MOTION) == "", "the old place still counts"


def test_what_odometry_explains_is_no_jump(localizer: Localizer, answer: Localization) -> None:
    tracker = Tracker(localizer)
    tracker.objection(answer, 1, Pose.identity(), 2, MOTION)
    assert answer.map_from_cam is not None
    there = jumped(answer, 2.0)
    assert there.map_from_cam is not None
    moved = answer.map_from_cam.inverse() @ there.map_from_cam
    assert tracker.objection(there, 2, moved, 2, MOTION) == ""


def test_without_odometry_only_a_given_pose_is_contradicted(localizer: Localizer, answer: Localization) -> None:
    """A car without odometry goes faster than anybody guessed."""
    tracker = Tracker(localizer)
    tracker.objection(answer, 10**9, None, 2, MOTION)
    assert tracker.objection(jumped(answer, 2.0), 10**9 + 10**8, None, 2, MOTION) == ""
    assert answer.map_from_cam is not None
    tracker.expect(prior_at(answer.map_from_cam), 10**9, None)
    assert "held back" in tracker.objection(jumped(answer, 2.0), 10**9, None, 2, MOTION)


def test_time_that_goes_back_begins_anew(localizer: Localizer, answer: Localization) -> None:
    tracker = Tracker(localizer)
    assert not tracker.begins_anew(100 * 10**9)
    tracker.objection(answer, 100 * 10**9, Pose.identity(), 2, MOTION)
    assert not tracker.begins_anew(100 * 10**9 - 10**8), "two images that swapped places are none"
    assert tracker.begins_anew(50 * 10**9)
    assert tracker.objection(jumped(answer, 5.0), 50 * 10**9, Pose.identity(), 2, MOTION) == ""


def test_a_prior_moves_with_its_uncertainty(answer: Localization) -> None:
    """Turning about an axis by dt moves the far end of a lever: the covariance is that of the moved frame."""
    start = Prior(Pose.identity(), torch.diag(torch.tensor([0, 0, 0.1**2, 0, 0, 0], dtype=torch.float64)))
    lever = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([2.0, 0, 0], dtype=torch.float64))
    moved = start.moved(lever, 0.0, 0.0)
    assert moved.covariance[4, 4] == pytest.approx(0.2**2)
    assert moved.covariance[2, 2] == pytest.approx(0.1**2)
    eased = moved.at_least(0.5, 0.01)
    assert eased.rotation_rad >= 0.5 and eased.translation == pytest.approx(0.2)
