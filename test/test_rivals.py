"""Rival estimators: they find the pose where it is easy, and say what is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from nre_ros.errors import ConfigError, NreError
from nre_ros.evaluation.estimator_cases import Case, CaseSpec, Kind, draw_case
from nre_ros.evaluation.rivals import RIVALS, Matches, best_cells, rivals_named
from nre_ros.geometry import Camera, pose_error


def case_of(camera: str = "pinhole") -> Case:
    return draw_case(CaseSpec("easy", 200, 8, {Kind.RIGHT: 0.7}, camera), 3)


@pytest.fixture(params=list(RIVALS))
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "poselib":
        pytest.importorskip("poselib", reason="PoseLib is not installed: pip install poselib")
    return request.param


@pytest.mark.parametrize("camera", ["pinhole", "equidistant"])
def test_finds_the_pose(name: str, camera: str) -> None:
    case = case_of(camera)
    matches = best_cells(case.xyz_map, case.coarse, case.camera)
    pose = RIVALS[name].solve(matches, 12.0, 0)
    assert pose is not None
    angle, distance = pose_error(pose.inverse(), case.cam_from_map.inverse())
    assert angle < 0.5
    assert distance < 0.05


def test_too_few_matches_give_no_pose(name: str) -> None:
    camera = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
    rng = np.random.default_rng(0)
    three = Matches(rng.uniform(1, 2, (3, 3)), rng.uniform(0, 400, (3, 2)), camera)
    assert RIVALS[name].solve(three, 5.0, 0) is None


@pytest.mark.parametrize("camera", ["pinhole", "plumb_bob", "rational", "equidistant"])
def test_best_cells_lie_where_an_undistorted_camera_sees_the_points(camera: str) -> None:
    case = case_of(camera)
    matches = best_cells(case.xyz_map, case.coarse, case.camera)
    assert not matches.camera.has_distortion
    uv_px, _ = matches.camera.project(case.cam_from_map.transform(case.xyz_map))
    off = (torch.from_numpy(matches.uv_px) - uv_px).norm(dim=-1)[case.kind == Kind.RIGHT]
    # the widest pixels of a distorted image grow most when its distortion is undone
    assert off.median() < case.spec.stride
    assert off.quantile(0.95) < 3 * case.spec.stride


def test_maps_without_gain_give_no_match() -> None:
    case = case_of()
    case.coarse.gain[:50] = 0
    assert len(best_cells(case.xyz_map, case.coarse, case.camera).uv_px) == 150


def test_without_poselib_the_user_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "poselib", None)
    with pytest.raises(NreError, match="pip install poselib"):
        rivals_named(["usac_default", "poselib"])
    assert list(rivals_named(["usac_magsac"])) == ["usac_magsac"]


def test_an_unknown_rival_is_refused() -> None:
    with pytest.raises(ConfigError, match="known ones: poselib"):
        rivals_named(["epnp"])
