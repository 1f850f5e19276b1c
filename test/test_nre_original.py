"""The original's conventions against the original's own numbers, and what they do to a pose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_cases import CELLS, COARSE, FINE, camera_of, load_golden, maps_of, poses_of
from loss_map_scenes import CAMERA, fine_stage, make_scene
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, Pose, pose_error
from nre_ros.nre import LossMaps, Outcome, estimate_pose, original
from nre_ros.nre.loss_maps import find_peaks
from nre_ros.nre.msac import Hypotheses

CONFIG = NreConfig(conventions="original", coarse_sigma_max=2.0)
CASES = [*COARSE, FINE]
each_case = pytest.mark.parametrize("name", CASES)
each_coarse_case = pytest.mark.parametrize("name", COARSE)

Case = tuple[dict[str, np.ndarray], LossMaps, Tensor, Camera]


def load_case(shared_data: Path, name: str) -> Case:
    golden = load_golden(shared_data, name)
    maps = maps_of(golden)
    if "window_origin_true" in golden:
        maps = windows_of(maps, torch.from_numpy(golden["window_origin_true"]), int(golden["window_size"]) + 1)
    return golden, maps, torch.from_numpy(golden["p3D"]).double(), camera_of(golden)


def windows_of(dense: LossMaps, first: Tensor, size: int) -> LossMaps:
    """What a fine stage stores: the cells around the maps' gain, here without losing any."""
    patch, inside = dense.patches(first[None], size)
    gain = (patch * (inside[..., 1, :, None] & inside[..., 0, None, :]))[0]
    assert float(gain.sum()) == pytest.approx(float(dense.gain.sum()), rel=1e-6)
    return replace(dense, gain=gain, origin_cells=first)


@each_case
def test_smoothed_costs(name: str, shared_data: Path) -> None:
    """Theirs are single precision, and a point may cost -40: 2e-5 is 4 units in the last place of that."""
    golden, maps, xyz, camera = load_case(shared_data, name)
    poses = poses_of(golden, "eval")
    for i, totals in enumerate(golden["eval_cost"]):
        for j, sigma in enumerate(golden["eval_sigmas"]):
            ours = original.smoothed_cost(maps, xyz, camera, poses[i], float(sigma))
            assert float(ours.sum()) == pytest.approx(totals[j], rel=1e-5)
            theirs = torch.from_numpy(golden["eval_cost_per_point"][i, j]).double()
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@each_coarse_case
def test_msac_costs(name: str, shared_data: Path) -> None:
    """Of all points, and of those it calls the most certain."""
    golden, maps, xyz, camera = load_case(shared_data, name)
    poses, top = poses_of(golden, "eval"), torch.from_numpy(golden["p3p_top"])
    for i, (every, certain) in enumerate(zip(golden["msac_cost_all"], golden["msac_cost_top"], strict=True)):
        ours = original.msac_cost(maps, xyz, camera, poses[i]).double()
        assert float(ours.sum()) == pytest.approx(every, rel=1e-5)
        assert float(ours[top].sum()) == pytest.approx(certain, rel=1e-5)


@each_coarse_case
def test_the_best_of_several_poses_is_theirs(name: str, shared_data: Path) -> None:
    golden, maps, xyz, camera = load_case(shared_data, name)
    poses = poses_of(golden, "eval")
    found = Hypotheses(Pose(poses.rotation[None], poses.translation[None]), torch.zeros((1, len(poses.translation))))
    batch = replace(maps, gain=maps.gain[None], origin_cells=maps.origin_cells[None])
    best = original.best_by_msac(batch, find_peaks(batch), xyz[None], camera, found, 0.25)
    wanted = int(golden["msac_cost_top"].argmin())
    assert torch.equal(best.poses.translation[0, 0], poses.translation[wanted])


@each_case
def test_jacobians(name: str, shared_data: Path) -> None:
    """With distortion too, of which theirs differentiates k1 only (fault B15)."""
    golden, maps, xyz, camera = load_case(shared_data, name)
    ours = original.jacobian(maps, xyz, camera, poses_of(golden, "eval")[0])
    theirs = torch.from_numpy(golden["jacobian_pose0"]).double()
    torch.testing.assert_close(ours, theirs, atol=1e-6 * float(theirs.abs().max()), rtol=0)


@each_case
@pytest.mark.parametrize("damping", ["1e-08", "1"])
def test_first_steps(name: str, damping: str, shared_data: Path) -> None:
    golden, maps, xyz, camera = load_case(shared_data, name)
    start = poses_of(golden, "eval")[0]
    twist, after = original.step(maps, xyz, camera, start, 2.0, float(damping))
    theirs = torch.from_numpy(golden[f"delta_pose0_sigma2_lambda{damping}"]).double()
    torch.testing.assert_close(twist, theirs, atol=5e-5 * float(theirs.abs().max()), rtol=0)
    torch.testing.assert_close(after.translation, start.translation + theirs[3:], atol=1e-5, rtol=0)


@each_case
def test_final_poses(name: str, shared_data: Path) -> None:
    """From their starts; the number of accepted steps differs by a few, as the last gain less than theirs can tell."""
    golden, maps, xyz, camera = load_case(shared_data, name)
    sigmas = original.schedule(float(golden["sigma_max"]), float(golden["sigma_min"]))
    pose, accepted = original.refine(maps, xyz, camera, poses_of(golden, "init"), sigmas)
    theirs = poses_of(golden, "final")
    degrees, distance = pose_error(pose.inverse(), theirs.inverse())
    assert degrees < 1e-3
    assert distance < 2e-4
    assert accepted == pytest.approx(int(golden["n_updates"]), abs=4)
    cost = float(original.smoothed_cost(maps, xyz, camera, pose, sigmas[-1]).sum())
    assert cost == pytest.approx(float(golden["final_cost"]), rel=1e-5)


@each_case
def test_the_schedule_of_the_cases(name: str, shared_data: Path) -> None:
    golden = load_golden(shared_data, name)
    assert original.schedule(float(golden["sigma_max"]), float(golden["sigma_min"])) == tuple(golden["schedule"])


def test_schedules(shared_data: Path) -> None:
    units = load_golden(shared_data, "units")
    assert original.schedule(2.0, 0.6) == pytest.approx(tuple(units["sched_06_2"]))
    assert original.schedule(4096.0, 0.2) == pytest.approx(tuple(units["sched_02_4096"]))


def flat_maps(stride: float, offset_px: float) -> LossMaps:
    return LossMaps(
        torch.zeros((1, 2, 2)), torch.zeros((1, 2), dtype=torch.long), (2, 2), CellGrid(stride, offset_px), 1
    )


def test_cells_lie_on_pixels_by_their_half_pixel_rule(shared_data: Path) -> None:
    """Each axis by its own scale: what their scaled K projects is the cell of what their K projects."""
    units = load_golden(shared_data, "units")
    rays = np.concatenate([np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2)), np.ones((20, 1))], 1)
    pixels, theirs = (torch.from_numpy(rays @ units[k].astype(np.float64).T)[:, :2] for k in ("K", "Kscaled"))
    for axis, scale in enumerate(units["scales"]):
        grid = original.half_pixel(flat_maps(1 / float(scale), 0.0)).grid
        torch.testing.assert_close(grid.cell_from_pixel(pixels[:, axis]), theirs[:, axis], atol=1e-5, rtol=0)


def test_beyond_a_map_its_border_is_read(shared_data: Path) -> None:
    """Fault B8. A camera of focal length one, and points at depth one, make the projections the positions wanted."""
    units = load_golden(shared_data, "units")
    loss, xy = torch.from_numpy(units["maps"]), torch.from_numpy(units["kp_maps"]).double()
    count, height, width = loss.shape
    ceiling = math.log(height * width + 1) + 2
    maps = LossMaps(ceiling - loss, torch.zeros((count, 2), dtype=torch.long), (width, height), CELLS, ceiling)
    outside = ((xy < 0) | (xy > torch.tensor([width - 1.0, height - 1.0]))).any(1)
    assert outside.sum() > 5 and (~outside).sum() > 5
    xyz = torch.cat([xy, torch.ones((count, 1))], 1)
    ours = original.msac_cost(maps, xyz, Camera(width, height, 1.0, 1.0, 0.0, 0.0), Pose.identity())
    torch.testing.assert_close(ours.double(), torch.from_numpy(units["interp_cost"]).double(), atol=1e-5, rtol=1e-5)


def test_points_behind_the_camera_cost_the_ceiling_in_msac_and_nothing_when_smoothed() -> None:
    scene = make_scene(0, 20, wrong=0.0, stride=16)
    about = Pose.exp(torch.tensor([0, torch.pi, 0, 0, 0, 0], dtype=torch.float64)) @ scene.cam_from_map
    cost = original.msac_cost(scene.coarse, scene.xyz_map, CAMERA, about)
    torch.testing.assert_close(cost, torch.full_like(cost, scene.coarse.ceiling))
    assert not bool(original.smoothed_cost(scene.coarse, scene.xyz_map, CAMERA, about, 1.0).any())


@pytest.mark.parametrize("with_fine", [False, True], ids=["coarse", "fine"])
def test_its_conventions_find_the_pose(with_fine: bool) -> None:
    scene = make_scene(0, 100, wrong=0.3, stride=16)
    fine = fine_stage(scene, 0, stride=4) if with_fine else None
    found = estimate_pose(scene.xyz_map, CAMERA, scene.coarse, fine, CONFIG)
    assert found.outcome is Outcome.OK and found.poses is not None
    degrees, distance = pose_error(found.poses[0].inverse(), scene.map_from_cam)
    assert degrees < (0.15 if with_fine else 0.8)
    assert distance < (0.01 if with_fine else 0.06)
    assert found.fine_share is not None and bool(found.fine_share.any()) == with_fine


def test_the_networks_own_offset_is_overruled() -> None:
    """Maps whose cell 0 is centred on pixel 0 are read as if it lay on pixel (s - 1) / 2: fault B6."""
    scene = make_scene(0, 100, wrong=0.3, stride=16, noise_cells=0.1)
    centred = replace(scene.coarse, grid=CellGrid(16, 0.0))
    assert original.half_pixel(centred).grid == scene.coarse.grid == CellGrid(16, 7.5)

    def pose(maps: LossMaps, conventions: str) -> Pose:
        config = replace(CONFIG, conventions=conventions)
        found = estimate_pose(scene.xyz_map, CAMERA, maps, None, config)
        assert found.poses is not None
        return found.poses[0].inverse()

    theirs = pose(centred, "original")
    assert max(pose_error(theirs, pose(scene.coarse, "original"))) < 1e-4
    assert pose_error(theirs, scene.map_from_cam)[0] < 0.4
    # 7.5 pixels along both axes at f = 500
    apart = pose_error(pose(centred, "nre_ros"), pose(scene.coarse, "nre_ros"))[0]
    assert float(apart) == pytest.approx(math.degrees(7.5 * 2**0.5 / 500), rel=0.5)
