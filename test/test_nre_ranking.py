"""Few landmarks in view, many cells that please all: the ranking maps tell the right pose from one that hides there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loss_map_scenes import CAMERA, Scene, bumps, loss_maps, make_scene

from nre_ros.config import NreConfig
from nre_ros.geometry import pose_error
from nre_ros.nre import estimate_pose, estimator
from nre_ros.nre.gnc import point_gains
from nre_ros.nre.ranking import FOUND, ranking_maps

CONFIG = NreConfig(msac_iterations=4000)
IN_VIEW, RIGHT, POINTS = 45, 36, 400
SIZE = torch.tensor([CAMERA.width, CAMERA.height], dtype=torch.float64)


def sparse_scene(seed: int) -> Scene:
    """Most points are out of view; their maps, all alike, prefer a few cells in the middle."""
    rng = torch.Generator().manual_seed(seed)
    uv_px = torch.rand((POINTS, 2), generator=rng, dtype=torch.float64) * SIZE
    beyond = torch.rand((POINTS, 2), generator=rng, dtype=torch.float64) * torch.tensor([2000.0, SIZE[1]])
    uv_px[IN_VIEW:] = beyond[IN_VIEW:] + torch.tensor([SIZE[0] + 50, 0.0])
    scene = make_scene(seed, POINTS, wrong=0.0, stride=16, uv_px=uv_px)
    right = torch.arange(POINTS) < RIGHT
    grid, (width, height) = scene.coarse.grid, scene.coarse.image_cells
    middle = torch.tensor([width, height]) / 2 + 2.5 * torch.randn((6, 2), generator=rng)
    hubs = middle[torch.randint(len(middle), (POINTS,), generator=rng)]
    place = torch.where(right[:, None], grid.cell_from_pixel(uv_px), hubs.double())
    place = place + 0.3 * torch.randn((POINTS, 2), generator=rng, dtype=torch.float64)
    logits = bumps(place, width, height) + 0.5 * torch.randn((POINTS, height, width), generator=rng)
    return replace(scene, coarse=loss_maps(logits.float(), grid), right=right)


def error_deg(scene: Scene) -> float:
    found = estimate_pose(scene.xyz_map, CAMERA, scene.coarse, None, CONFIG)
    assert found.poses is not None
    return float(pose_error(found.poses[0].inverse(), scene.map_from_cam)[0])


def test_a_pose_upon_cells_that_please_all_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [sparse_scene(seed) for seed in range(4)]
    ranked = [error_deg(scene) for scene in scenes]
    monkeypatch.setattr(estimator, "ranking_maps", lambda maps, counts: maps)
    by_gain = [error_deg(scene) for scene in scenes]
    assert max(ranked) < 1
    assert sorted(by_gain)[1] > 5


def test_ratios_are_those_of_the_densities_and_count_only_points_that_say_something() -> None:
    scene = sparse_scene(0)
    counts = torch.ones(POINTS, dtype=torch.bool)
    counts[7] = False
    ranking = ranking_maps(scene.coarse, counts)
    density = scene.coarse.gain.exp()
    average = density[counts].mean(0)
    expected = torch.log(1 - FOUND + FOUND * density[3] / average)
    torch.testing.assert_close(ranking.gain[3], expected, rtol=1e-4, atol=1e-4)
    assert not bool(ranking.gain[7].any())
    # ten more points that say nothing change nothing: what a batch fills a query up with
    more = torch.cat([scene.coarse.gain, torch.zeros(10, *scene.coarse.gain.shape[1:])])
    filled = replace(scene.coarse, gain=more, origin_cells=torch.zeros((len(more), 2), dtype=torch.long))
    again = ranking_maps(filled, torch.cat([counts, torch.zeros(10, dtype=torch.bool)]))
    torch.testing.assert_close(again.gain[:POINTS], ranking.gain)


def test_a_miss_in_view_costs_and_out_of_view_does_not() -> None:
    scene = sparse_scene(1)
    ranking = ranking_maps(scene.coarse, torch.ones(POINTS, dtype=torch.bool))
    at_truth = point_gains(ranking, scene.xyz_map, CAMERA, scene.cam_from_map[None])[0]
    assert float(at_truth[:RIGHT].median()) > 2
    assert float(at_truth[RIGHT:IN_VIEW].median()) < 0
    assert not bool(at_truth[IN_VIEW:].any())
