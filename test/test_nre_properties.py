"""What holds for any scene, camera and maps: units, origins and order do not matter, and nothing makes it fall over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_map_scenes import CAMERA, Scene, bumps, fine_stage, loss_maps, make_scene, scaled
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, DistortionModel, Pose, pose_error
from nre_ros.nre import Estimate, FineStage, LossMaps, Outcome, estimate_pose
from nre_ros.nre.covariance import pose_covariance
from nre_ros.nre.fine import cut_windows
from nre_ros.nre.gnc import linearise, project_to_cells, refine, sigma_levels
from nre_ros.nre.loss_maps import find_peaks
from nre_ros.nre.msac import find_poses
from nre_ros.nre.p3p import solve_p3p

CONFIG = NreConfig(msac_iterations=1000)
STRIDE, FINE_STRIDE = 32, 16
"""Maps of 20 x 15 cells, windows on 40 x 30."""
SIGMAS = sigma_levels(CONFIG.coarse_sigma_max, CONFIG.coarse_sigma_min)
few_examples = settings(max_examples=12, deadline=None, derandomize=True)
more_examples = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 1000)
CAMERAS = [
    CAMERA,
    replace(CAMERA, distortion=(-0.3, 0.1, 0.001, -0.002, 0.01)),
    replace(CAMERA, model=DistortionModel.RATIONAL, distortion=(0.3, -0.1, 0.001, 0.002, 0.01, 0.5, -0.05, 0.02)),
    replace(CAMERA, model=DistortionModel.EQUIDISTANT, distortion=(0.05, -0.01, 0.003, -0.001)),
]
CAMERA_NAMES = ["pinhole", "plumb_bob", "rational", "equidistant"]


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def easy_scene(seed: int, points: int = 40) -> Scene:
    return make_scene(seed, points, wrong=0.2, stride=STRIDE, noise_cells=0.1)


def estimate(scene: Scene, fine: FineStage | None = None, config: NreConfig = CONFIG) -> Estimate:
    return estimate_pose(scene.xyz_map, CAMERA, scene.coarse, fine, config)


def best(estimate: Estimate) -> Pose:
    """``map_from_cam``."""
    assert estimate.outcome is Outcome.OK and estimate.poses is not None
    return estimate.poses[0].inverse()


def apart(one: Pose, other: Pose) -> tuple[float, float]:
    degrees, distance = pose_error(one, other)
    return float(degrees), float(distance)


def with_gain(scene: Scene, gain: Tensor) -> Scene:
    return replace(scene, coarse=replace(scene.coarse, gain=gain))


def assert_sound(found: Estimate, points: int) -> None:
    """Poses that are rotations and finite numbers, or an outcome and none of them."""
    if found.outcome is not Outcome.OK:
        assert found.poses is found.gains is found.covariance is found.coarse_share is found.fine_share is None
        return
    assert found.poses is not None and found.gains is not None and found.poses.is_finite()
    rotation = found.poses.rotation
    torch.testing.assert_close(
        rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand_as(rotation), atol=1e-6, rtol=0
    )
    assert bool((torch.linalg.det(rotation) > 0).all())
    assert len(found.gains) == len(rotation) and bool(torch.isfinite(found.gains).all())
    for share in (found.coarse_share, found.fine_share):
        assert share is not None and share.shape == (points,) and bool(((share >= 0) & (share <= 1.001)).all())
    if found.covariance is not None:
        sigmas = found.covariance.diagonal().sqrt()
        correlation = found.covariance / sigmas / sigmas[:, None]
        assert bool(torch.isfinite(correlation).all()) and float(torch.linalg.eigvalsh(correlation)[0]) > -1e-6


# What must not matter


@few_examples
@given(seed=seeds, power=st.sampled_from([-3, -2, -1, 1, 2, 3]))
def test_another_unit_of_length_changes_the_translation_alone(seed: int, power: int) -> None:
    factor = 10.0**power
    scene = easy_scene(seed)
    fine = fine_stage(scene, seed, FINE_STRIDE)
    for its_fine in (None, fine):
        one, other = estimate(scene, its_fine), estimate(scaled(scene, factor), its_fine)
        pose = best(other)
        degrees, distance = apart(Pose(pose.rotation, pose.translation / factor), best(one))
        assert degrees < 0.01 and distance < 1e-3
        assert one.covariance is not None and other.covariance is not None
        unit = torch.tensor([1.0] * 3 + [factor] * 3, dtype=torch.float64)
        torch.testing.assert_close(other.covariance / unit / unit[:, None], one.covariance, rtol=0.05, atol=1e-9)


@few_examples
@given(seed=seeds, shift=st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_another_origin_moves_the_pose_with_it(seed: int, shift: list[float]) -> None:
    scene = easy_scene(seed)
    moved = scene.xyz_map.new_tensor(shift)
    one = best(estimate(scene))
    other = best(estimate(replace(scene, xyz_map=scene.xyz_map + moved)))
    degrees, distance = apart(Pose(other.rotation, other.translation - moved), one)
    assert degrees < 0.02 and distance < 2e-3


@few_examples
@given(seed=seeds)
def test_points_in_another_order_have_their_shares_in_that_order(seed: int) -> None:
    scene = easy_scene(seed)
    order = torch.randperm(40, generator=rng(seed))
    one = estimate(scene)
    other = estimate(replace(scene, xyz_map=scene.xyz_map[order], coarse=scene.coarse.select(order)))
    degrees, distance = apart(best(other), best(one))
    assert degrees < 0.02 and distance < 2e-3
    assert one.coarse_share is not None and other.coarse_share is not None
    torch.testing.assert_close(other.coarse_share, one.coarse_share[order], atol=0.01, rtol=0)


# What must not bring it down


@st.composite
def hostile_cameras(draw: st.DrawFn) -> Camera:
    model = draw(st.sampled_from(list(DistortionModel)))
    count = {DistortionModel.PLUMB_BOB: 5, DistortionModel.RATIONAL: 8, DistortionModel.EQUIDISTANT: 4}[model]
    distortion = draw(st.lists(st.floats(-5, 5), min_size=count, max_size=count))
    fx, fy = (10.0 ** draw(st.floats(-3, 6)) for _ in range(2))
    cx = draw(st.floats(-1e4, 1e4))
    return Camera(CAMERA.width, CAMERA.height, fx, fy, cx, 239.5, model, tuple(distortion))


def turned_about(scene: Scene) -> Scene:
    return replace(scene, xyz_map=scene.map_from_cam.transform(-scene.cam_from_map.transform(scene.xyz_map)))


FAULTS = {
    "garbage": lambda s, n: with_gain(s, s.coarse.ceiling * torch.rand(s.coarse.gain.shape, generator=rng(n))),
    "flat": lambda s, n: with_gain(s, torch.full_like(s.coarse.gain, 3.0)),
    "one map for all": lambda s, n: with_gain(s, s.coarse.gain[:1].expand_as(s.coarse.gain).clone()),
    "a NaN cell": lambda s, n: with_gain(s, put(s.coarse.gain, n, math.nan)),
    "an infinite cell": lambda s, n: with_gain(s, put(s.coarse.gain, n, math.inf)),
    "NaN maps": lambda s, n: with_gain(s, torch.full_like(s.coarse.gain, math.nan)),
    "a NaN point": lambda s, n: replace(s, xyz_map=put(s.xyz_map, n, math.nan)),
    "an infinite point": lambda s, n: replace(s, xyz_map=put(s.xyz_map, n, -math.inf)),
    "a point very far away": lambda s, n: replace(s, xyz_map=put(s.xyz_map, n, 1e200)),
    "one point for all": lambda s, n: replace(s, xyz_map=s.xyz_map[n].expand_as(s.xyz_map).clone()),
    "points on a line": lambda s, n: replace(s, xyz_map=s.xyz_map * torch.tensor([1.0, 0.0, 0.0])),
    "all behind the camera": lambda s, n: turned_about(s),
    "tiny": lambda s, n: scaled(s, 1e-30),
    "huge": lambda s, n: scaled(s, 1e30),
}  # fmt: skip


def put(values: Tensor, n: int, bad: float) -> Tensor:
    spoilt = values.clone()
    spoilt[n].view(-1)[-1] = bad
    return spoilt


@more_examples
@given(
    seed=seeds,
    points=st.sampled_from([4, 5, 6, 12, 40]),
    faults=st.lists(st.sampled_from(sorted(FAULTS)), max_size=2, unique=True),
    camera=st.one_of(st.sampled_from(CAMERAS), hostile_cameras()),
    with_fine=st.booleans(),
    use_re=st.booleans(),
    skip_gnc=st.booleans(),
)
def test_nothing_makes_it_fall_over(
    seed: int, points: int, faults: list[str], camera: Camera, with_fine: bool, use_re: bool, skip_gnc: bool
) -> None:
    scene = easy_scene(seed, points)
    fine = fine_stage(scene, seed, FINE_STRIDE) if with_fine else None
    for fault in faults:
        scene = FAULTS[fault](scene, seed % points)
    config = replace(CONFIG, use_re=use_re, skip_gnc=skip_gnc)
    assert_sound(estimate_pose(scene.xyz_map, camera, scene.coarse, fine, config), points)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "flat"])
def test_nor_do_the_originals_conventions(fault: str) -> None:
    scene = FAULTS[fault](easy_scene(0, 20), 3)
    found = estimate_pose(scene.xyz_map, CAMERA, scene.coarse, None, replace(CONFIG, conventions="original"))
    assert_sound(found, 20)


@pytest.mark.parametrize("points", range(7))
@pytest.mark.parametrize("same", [False, True], ids=["apart", "one place"])
def test_few_points(points: int, same: bool) -> None:
    scene = make_scene(0, 10, wrong=0.0, stride=STRIDE)
    xyz_map = scene.xyz_map[:1].expand(10, 3) if same else scene.xyz_map
    few = replace(scene, xyz_map=xyz_map[:points], coarse=scene.coarse.select(torch.arange(points)))
    fine = fine_stage(scene, 0, FINE_STRIDE)
    for its_fine in (None, replace(fine, descriptors=fine.descriptors[:points])):
        found = estimate(few, its_fine)
        assert_sound(found, points)
        assert (found.outcome is Outcome.TOO_FEW_POINTS) == (points < 4)
        assert found.covariance is None


@few_examples
@given(seed=seeds, level=st.sampled_from([0.0, 1e-4, 0.05]))
def test_maps_that_prefer_no_place_are_called_flat(seed: int, level: float) -> None:
    scene = easy_scene(seed, 12)
    assert estimate(with_gain(scene, torch.full_like(scene.coarse.gain, level))).outcome is Outcome.FLAT_MAPS


@few_examples
@given(
    seed=seeds,
    bad=st.lists(st.integers(0, 39), min_size=1, max_size=6, unique=True),
    value=st.sampled_from([math.nan, math.inf]),
    of_maps=st.booleans(),
)
def test_points_that_are_no_numbers_are_left_out_and_counted(
    seed: int, bad: list[int], value: float, of_maps: bool
) -> None:
    scene = easy_scene(seed)
    spoilt = scene
    for n in bad:
        if of_maps:
            spoilt = with_gain(spoilt, put(spoilt.coarse.gain, n, value))
        else:
            spoilt = replace(spoilt, xyz_map=put(spoilt.xyz_map, n, value))
    kept = torch.tensor([n for n in range(40) if n not in bad])
    rest = estimate(replace(scene, xyz_map=scene.xyz_map[kept], coarse=scene.coarse.select(kept)))
    found = estimate(spoilt)
    assert found.unusable == len(bad) and rest.unusable == 0
    degrees, distance = apart(best(found), best(rest))
    assert degrees < 0.02 and distance < 2e-3
    assert found.coarse_share is not None and not bool(found.coarse_share[bad].any())


def test_maps_with_minus_infinity_are_left_out_too() -> None:
    scene = easy_scene(1)
    kept = torch.arange(40) != 3
    found = estimate(with_gain(scene, put(scene.coarse.gain, 3, -math.inf)))
    rest = estimate(replace(scene, xyz_map=scene.xyz_map[kept], coarse=scene.coarse.select(kept.nonzero()[:, 0])))
    assert found.unusable == 1
    assert apart(best(found), best(rest))[0] < 0.02


def test_p3p_of_points_in_almost_one_direction_gives_rotations_or_nothing() -> None:
    """As when maps peak at one place."""
    random = rng(0)
    rays = torch.randn((2000, 1, 3), generator=random, dtype=torch.float64)
    rays = rays + 1e-7 * torch.randn((2000, 3, 3), generator=random, dtype=torch.float64)
    xyz_map = torch.randn((2000, 3, 3), generator=random, dtype=torch.float64)
    poses, valid = solve_p3p(rays / rays.norm(dim=-1, keepdim=True), xyz_map)
    rotation = poses.rotation[valid]
    assert float((rotation @ rotation.mT - torch.eye(3)).abs().max()) < 1e-6


# Derivatives


@pytest.mark.parametrize("camera", CAMERAS, ids=CAMERA_NAMES)
def test_the_jacobian_by_the_pose_is_autograds(camera: Camera) -> None:
    """In cells, by the twist of ``Pose.perturb``, for two poses at once."""
    scene = make_scene(0, 12, wrong=0.0, stride=STRIDE, camera=camera)
    nudge = 0.05 * torch.randn((2, 6), generator=rng(0), dtype=torch.float64)
    poses = Pose.exp(nudge) @ scene.cam_from_map

    def cells(twist: Tensor) -> Tensor:
        return project_to_cells(scene.coarse, scene.xyz_map, camera, poses.perturb(twist))[0]

    xy, jacobian, visible = project_to_cells(scene.coarse, scene.xyz_map, camera, poses)
    assert xy.shape == (2, 12, 2) and visible.shape == (2, 12) and bool(visible.any(1).all())
    by_autograd = torch.autograd.functional.jacobian(cells, torch.zeros((2, 6), dtype=torch.float64))
    for h in range(2):
        wanted, given_ = by_autograd[h, visible[h]][:, :, h], jacobian[h, visible[h]]
        assert float((given_ - wanted).abs().max()) < 1e-8 * float(wanted.abs().max())
        assert not bool(by_autograd[h, :, :, 1 - h].any())


# The robust reprojection error (Eq. 11), and no refinement


def hot_cells(maps: LossMaps) -> Tensor:
    flat = maps.gain.flatten(-2)
    assert bool(((flat == 0) | (flat - maps.ceiling).abs().lt(1e-5)).all())
    return (flat > 0).sum(-1)


def test_re_asks_one_cell_of_every_map_in_both_stages() -> None:
    scene = easy_scene(0)
    hot = scene.coarse.one_hot()
    assert bool((hot_cells(hot) == 1).all())
    assert torch.equal(hot.gain.flatten(1).argmax(1), scene.coarse.gain.flatten(1).argmax(1))
    assert not bool(with_gain(scene, torch.zeros_like(hot.gain)).coarse.one_hot().gain.any())

    fine, batch = fine_stage(scene, 0, FINE_STRIDE), batched(scene.coarse)
    pose = Pose(scene.cam_from_map.rotation[None, None], scene.cam_from_map.translation[None, None])
    plain, sharp = (
        cut_windows(batch, scene.xyz_map[None], CAMERA, pose, [fine], 8, use_re) for use_re in (False, True)
    )
    says_something = plain.maps.gain.flatten(-2).any(-1)
    assert says_something.sum() > 20
    assert torch.equal(hot_cells(sharp.maps), says_something.long())
    assert bool((plain.maps.gain.flatten(-2).count_nonzero(-1)[says_something] > 1).any())
    best_cell = (windows.maps.gain.flatten(-2).argmax(-1) for windows in (plain, sharp))
    assert torch.equal(*(cell[says_something] for cell in best_cell))


def batched(maps: LossMaps) -> LossMaps:
    return replace(maps, gain=maps.gain[None], origin_cells=maps.origin_cells[None])


@pytest.mark.parametrize("with_fine", [False, True], ids=["coarse", "fine"])
def test_re_finds_the_pose_that_most_matches_agree_on(with_fine: bool) -> None:
    for seed in range(3):
        scene = make_scene(seed, 100, wrong=0.3, stride=16)
        fine = fine_stage(scene, seed, stride=4) if with_fine else None
        degrees, distance = apart(best(estimate(scene, fine, replace(CONFIG, use_re=True))), scene.map_from_cam)
        assert degrees < (0.2 if with_fine else 0.8)
        assert distance < (0.02 if with_fine else 0.08)


def test_weaker_modes_help_nre_and_not_re() -> None:
    """Nine maps in ten prefer a wrong place and hold something for the right one: Eq. 11 knows of the tenth alone."""
    config, logs = replace(CONFIG, msac_iterations=10000), []
    for seed in range(4):
        scene = make_scene(seed, 100, wrong=0.9, stride=16)
        grid, (width, height) = scene.coarse.grid, scene.coarse.image_cells
        there = grid.cell_from_pixel(scene.uv_px)
        elsewhere = torch.rand((100, 2), generator=rng(seed)) * torch.tensor([width, height])
        stronger = bumps(torch.where(scene.right[:, None], there, elsewhere), width, height, confidence=9.0)
        scene = replace(scene, coarse=loss_maps(stronger.maximum(bumps(there, width, height, confidence=7.5)), grid))
        nre, re = (
            apart(best(estimate(scene, config=replace(config, use_re=use_re))), scene.map_from_cam)[0]
            for use_re in (False, True)
        )
        assert nre < 0.15
        logs.append(math.log(re / nre))
    assert math.exp(sum(logs) / len(logs)) > 3


def test_without_gnc_the_best_p3p_pose_is_the_answer() -> None:
    scene, stages = easy_scene(0), []
    config = replace(CONFIG, skip_gnc=True)
    found = estimate_pose(
        scene.xyz_map, CAMERA, scene.coarse, fine_stage(scene, 0, FINE_STRIDE), config, done=stages.append
    )
    batch = batched(scene.coarse)
    hypotheses = find_poses(batch, batch, find_peaks(batch), scene.xyz_map[None], CAMERA, config)
    assert stages == ["msac"]
    assert found.poses is not None and torch.equal(found.poses[0].matrix(), hypotheses.poses[0, 0].matrix())
    assert found.fine_share is not None and not bool(found.fine_share.any())
    assert apart(best(found), best(estimate(scene)))[0] > 0.01


# More than one answer, and how sure it is


@pytest.mark.parametrize("seed", range(3))
def test_both_poses_that_maps_agree_on_are_answers(seed: int) -> None:
    """Half of the maps see the points from A, 45 of 100 from B."""
    scene, count = make_scene(seed, 400, wrong=0.0, stride=16), 100
    twist = torch.tensor([0.15, -0.2, 0.3, -0.5, 0.3, -0.2], dtype=torch.float64)
    from_b = Pose.exp(twist) @ scene.cam_from_map
    uv_b_px, visible = CAMERA.project(from_b.transform(scene.xyz_map))
    both = (visible & CAMERA.contains(uv_b_px)).nonzero()[:count, 0]
    assert len(both) == count
    assert (uv_b_px - scene.uv_px)[both].norm(dim=1).median() > 64  # four cells: another place, not a slip
    random, grid, size = rng(seed), scene.coarse.grid, scene.coarse.image_cells
    uv_px = torch.cat([scene.uv_px[both[:50]], uv_b_px[both[50:]]])
    cells = grid.cell_from_pixel(uv_px) + 0.2 * torch.randn((count, 2), generator=random)
    cells[95:] = (torch.rand((5, 2), generator=random) * torch.tensor(size)).double()
    found = estimate_pose(scene.xyz_map[both], CAMERA, loss_maps(bumps(cells, *size), grid), None, CONFIG)

    assert found.poses is not None and found.gains is not None and len(found.gains) >= 2
    assert bool((found.gains.diff() <= 0).all())
    for pose, truth in zip((found.poses[0], found.poses[1]), (scene.cam_from_map, from_b), strict=True):
        degrees, distance = apart(pose.inverse(), truth.inverse())
        assert degrees < 1.5 and distance < 0.15


def covariance_at(maps: LossMaps, xyz_map: Tensor, pose: Pose) -> tuple[Tensor, bool]:
    at_pose = linearise(maps, xyz_map, CAMERA, pose[None], SIGMAS[-1], min_curvature=None)
    covariance, fixed = pose_covariance(at_pose)
    return covariance[0], bool(fixed[0])


def test_poses_that_points_do_not_fix_have_no_covariance() -> None:
    """Points on a line let the camera turn about it; a few points do not tell how they scatter."""
    grid = CellGrid(16, 7.5)
    along = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    on_a_line = along * torch.tensor([1.5, 0.8, 1.0]) + torch.tensor([0.1, -0.2, 4.0])
    off_it = on_a_line + 0.5 * torch.randn((40, 3), generator=rng(0), dtype=torch.float64)
    for xyz_map, wanted in ((on_a_line, False), (off_it, True), (off_it[:6], False)):
        uv_px, _ = CAMERA.project(xyz_map)
        maps = loss_maps(bumps(grid.cell_from_pixel(uv_px) + 0.1, 40, 30), grid)
        assert covariance_at(maps, xyz_map, Pose.identity())[1] is wanted


def test_the_covariance_of_few_and_half_wrong_points_is_honest() -> None:
    """Mean NEES of 100 poses, as in test_nre_estimator of 60 with 300 points."""
    total = 0.0
    for seed in range(100):
        scene = make_scene(seed, 100, wrong=0.5, stride=16)
        poses, _ = refine(scene.coarse, scene.xyz_map, CAMERA, scene.cam_from_map[None], SIGMAS[-1:])
        covariance, fixed = covariance_at(scene.coarse, scene.xyz_map, poses[0])
        assert fixed
        twist = (poses[0] @ scene.map_from_cam).log()
        total += float(twist @ torch.linalg.solve(covariance, twist))
    assert 4.4 < total / 100 < 7.9
