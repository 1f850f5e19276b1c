"""Where a map fails its queries: areas found, named and drawn; and which way is up."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nre_ros.evaluation.health import advice, draw_health, worst_areas
from nre_ros.evaluation.metrics import Answer, Scale
from nre_ros.evaluation.plan import plan_of
from nre_ros.geometry import Pose
from nre_ros.mapping import Map


def looking(x: float, y: float, heading_deg: float, height: float = 1.0) -> Pose:
    """A level camera in a z-up map."""
    turn = math.radians(heading_deg)
    forward = np.array([math.cos(turn), math.sin(turn), 0.0])
    rotation = np.stack([np.cross(forward, [0, 0, 1.0]), [0, 0, -1.0], forward], -1)
    return Pose(torch.from_numpy(rotation), torch.tensor([x, y, height], dtype=torch.float64))


def query(truth: Pose | None, kind: str) -> Answer:
    answer = None
    if truth is not None and kind != "refused":
        off = torch.tensor([2.0 * (kind == "wrong"), 0.0, 0.0], dtype=torch.float64)
        answer = Pose(truth.rotation, truth.translation + off)
    return Answer(0, "", "rejected" if kind == "refused" else "accepted", "", 0.7, answer, truth, 1.0, {})


def queries(x: float, y: float, heading_deg: float, kinds: str) -> list[Answer]:
    names = {"r": "right", "n": "refused", "w": "wrong"}
    return [query(looking(x + 0.05 * i, y, heading_deg), names[kind]) for i, kind in enumerate(kinds)]


def test_areas_are_where_queries_fail_worst_first() -> None:
    answers = [*queries(0, 0, 0, "rrrnrr"), *queries(9, 0, 90, "nnr"), *queries(0, 9, 180, "nwnwr")]
    areas = worst_areas(answers, radius=1.0, scale=Scale())
    assert [(area.failed, area.queries) for area in areas] == [(4, 5), (2, 3)]
    np.testing.assert_allclose(areas[0].centre, [0.075, 9, 1], atol=1e-9)
    np.testing.assert_allclose(areas[0].direction, [-1, 0, 0], atol=1e-9)
    said = advice(areas, "metre")
    assert said[0].startswith("1: remap here, around (0.1, 9.0, 1.0) m") and "4 of 5 queries fail" in said[0]


def test_the_same_place_seen_the_other_way_is_another_area() -> None:
    areas = worst_areas([*queries(0, 0, 0, "rrrr"), *queries(0, 0, 180, "nnn")], radius=1.0, scale=Scale())
    assert [(area.failed, area.queries) for area in areas] == [(3, 3)]


def test_single_failures_make_no_area() -> None:
    answers = [*queries(0, 0, 0, "rrn"), *queries(20, 0, 0, "n"), query(None, "refused")]
    assert worst_areas(answers, radius=1.0, scale=Scale()) == []
    assert worst_areas([], radius=1.0, scale=Scale()) == []
    assert "no area" in advice([], "metre")[0]


def test_health_is_drawn(corner_map: Map, tmp_path: Path) -> None:
    for name, kinds in (("all", "rrnnwnn"), ("right", "rr"), ("refused", "nn")):
        draw_health(corner_map, queries(1.7, -1.7, 135, kinds)).savefig(tmp_path / f"{name}.png")
        assert cv2.imread(str(tmp_path / f"{name}.png")).std() > 10


def stacked(poses: list[Pose]) -> Pose:
    return Pose.from_matrix(torch.stack([pose.matrix() for pose in poses]))


def test_a_level_map_keeps_its_axes() -> None:
    poses = stacked([looking(3 * math.sin(i), 2 * math.cos(2 * i), 50.0 * i) for i in range(12)])
    plan = plan_of(poses)
    assert np.array_equal(plan.axes, np.eye(3)) and plan.up == "z of the map"


@pytest.mark.parametrize("seed", [1, 2])
def test_up_turns_with_the_map(seed: int) -> None:
    """A walk in a plane, in a frame turned at random: the plan shows the same, seen from the same side."""
    walk = [looking(3 * math.sin(i), 2 * math.cos(2 * i), 50.0 * i, 1 + 0.05 * math.sin(3 * i)) for i in range(12)]
    twist = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    poses = Pose.exp(twist) @ stacked(walk)
    up = (Pose.exp(twist).rotation @ torch.tensor([0, 0, 1.0], dtype=torch.float64)).numpy()
    plan = plan_of(poses)
    assert plan.axes[2] @ up > 0.99
    np.testing.assert_allclose(plan.axes @ plan.axes.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(plan.axes) == pytest.approx(1)


def test_the_sky_is_above_a_camera_that_looks_down() -> None:
    down = Pose.from_matrix(torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)))
    poses = [Pose(down.rotation, torch.tensor([5.0 * i, 4.0 * (i % 3), 30], dtype=torch.float64)) for i in range(9)]
    turned = Pose.exp(torch.tensor([1.0, 0.4, 0, 0, 0, 0], dtype=torch.float64))
    sky = (turned.rotation @ torch.tensor([0, 0, 1.0], dtype=torch.float64)).numpy()
    assert plan_of(turned @ stacked(poses)).axes[2] @ sky > 0.99


def test_a_straight_drive_takes_up_from_the_cameras() -> None:
    plan = plan_of(stacked([looking(2.0 * i, 0.02 * math.sin(i), 0) for i in range(10)]))
    assert plan.up == "z of the map"
