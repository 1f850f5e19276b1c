"""Poses of posed images as a measure of descriptors: whole queries, true answers found, errors that mean something."""

from __future__ import annotations

import copy
import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_scenes import colours, small_config, texture, write_colmap

from nre_ros.features.compact import CompactNet
from nre_ros.geometry import Pose
from nre_ros.recordings.compressed import encode_png
from nre_ros.training import Mixture, Processes, Trainer, TrainingConfig, start_network, validate_poses
from nre_ros.training.pose_queries import PoseQuery, fixed_queries
from nre_ros.training.pose_validation import score
from nre_ros.training.posed import PosedPairs, colmap_scene

pytest_plugins = ["training_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = small_config(validation_poses=3, pairs__width=192, pairs__height=160)


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colmap(tmp_path_factory.mktemp("colmap") / "corner")


@pytest.fixture(scope="module")
def source(corner: Path) -> PosedPairs:
    return PosedPairs([colmap_scene(corner, CONFIG.pairs)], CONFIG.pairs)


@pytest.fixture(scope="module")
def queries(source: PosedPairs) -> list[PoseQuery]:
    return fixed_queries(source, CONFIG, strong=False)


@pytest.fixture(scope="module")
def net() -> CompactNet:
    return start_network("default", TrainingConfig())[0].eval()


def test_points_are_where_the_reference_shows_them_and_the_true_pose_puts_them(queries: list[PoseQuery]) -> None:
    assert len(queries) == 3
    for query in queries:
        assert query.query_rgb.shape == query.reference_rgb.shape == (144, 192, 3)
        assert (query.camera.width, query.camera.height) == (192, 144)
        uv_px, visible = query.camera.project(query.cam_from_scene.transform(query.xyz))
        seen = (visible & query.camera.contains(uv_px)).numpy()
        shown = colours(query.reference_rgb, query.uv_px.numpy()), colours(query.query_rgb, uv_px.numpy())
        apart = np.abs(shown[0] - shown[1]).mean(1)[seen]
        by_chance = np.abs(shown[0][::-1] - shown[1]).mean(1)[seen]
        assert seen.sum() > 50 and np.median(apart) < 8 < 20 < np.median(by_chance)
        assert 1.0 < query.depth < 4.0


def test_queries_are_the_same_every_time_and_strong_ones_worse(source: PosedPairs, queries: list[PoseQuery]) -> None:
    again = fixed_queries(source, CONFIG, strong=False)
    strong = fixed_queries(source, CONFIG, strong=True)
    for one, same, worse in zip(queries, again, strong, strict=True):
        np.testing.assert_array_equal(one.query_rgb, same.query_rgb)
        assert torch.equal(one.uv_px, same.uv_px) and torch.equal(one.xyz, worse.xyz)
        np.testing.assert_array_equal(one.reference_rgb, worse.reference_rgb)
        assert (one.query_rgb != worse.query_rgb).any()


def test_descriptors_that_say_something_find_the_poses_and_constant_ones_none(
    net: CompactNet, queries: list[PoseQuery]
) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = validate_poses(net, {"corner": queries, "none": []})
    assert list(found) == ["corner"]
    assert found["corner"].poses == 3 and found["corner"].within_5 == 1.0
    assert found["corner"].rotation_deg < 1.0 and found["corner"].position < 0.02
    # measuring changes nothing: batch norms are folded in a copy
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    constant = copy.deepcopy(net)
    for head in constant.heads.values():
        torch.nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    assert validate_poses(constant, {"corner": queries})["corner"].within_5 == 0.0


def test_error_is_measured_from_the_true_pose(net: CompactNet, queries: list[PoseQuery]) -> None:
    turn = Pose.exp(torch.tensor([0.0, np.radians(10.0), 0.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    turned = [replace(query, cam_from_scene=turn @ query.cam_from_scene) for query in queries]
    found = validate_poses(net, {"turned": turned})["turned"]
    assert found.rotation_deg == pytest.approx(10.0, abs=1.5) and found.within_5 == 0.0


def test_a_query_without_a_pose_counts_as_infinitely_far_off(net: CompactNet, queries: list[PoseQuery]) -> None:
    blind = [replace(queries[0], uv_px=query.uv_px[:3], xyz=query.xyz[:3]) for query in queries]
    found = validate_poses(net, {"blind": blind})["blind"]
    assert found.rotation_deg == found.position == np.inf and found.within_5 == 0.0


def test_shares_need_both_the_angle_and_the_distance() -> None:
    found = score([(0.5, 0.005), (0.5, 0.02), (2.0, 0.005), (2.0, 0.2)])
    assert (found.within_1, found.within_5) == (0.25, 0.75)
    assert (found.rotation_deg, found.poses) == (1.25, 4)


def test_images_of_another_size_than_their_camera_are_skipped_and_named(corner: Path, tmp_path: Path) -> None:
    scene = Path(shutil.copytree(corner, tmp_path / "scene"))
    (scene / "images/2.png").write_bytes(encode_png(texture(1)))
    source = PosedPairs([colmap_scene(scene, CONFIG.pairs)], CONFIG.pairs)
    drawn = [source.draw(np.random.default_rng(seed), 128, 96) for seed in range(12)]
    assert any(pair is not None for pair in drawn)
    (named,) = source.corrupt
    assert named == f"{scene}/images/2.png (256x200 pixels, its camera has 320x240)"


def test_curves_hold_the_pose_errors(source: PosedPairs, queries: list[PoseQuery], tmp_path: Path) -> None:
    config = small_config(steps=2, validation_steps=1)
    net, rate_factor = start_network("default", config)
    mixture, alone = Mixture({"posed": source}, config), Processes(0, 1, torch.device("cpu"))
    learner = Trainer(net, mixture, {}, {"corner": queries[:1]}, tmp_path, alone, rate_factor)
    learner.run(lambda step, loss: None)
    rows = list(csv.DictReader((tmp_path / "poses.csv").open()))
    assert [(row["step"], row["set"]) for row in rows] == [("1", "corner"), ("2", "corner")]
    last = learner.pose_scores["corner"]
    assert float(rows[-1]["rotation_deg"]) == pytest.approx(last.rotation_deg, abs=1e-5)
    assert float(rows[-1]["within_5"]) == last.within_5
