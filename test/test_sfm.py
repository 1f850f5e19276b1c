"""``build-map --sfm``: a map of images without poses, in the unit that is asked for, and what it refuses."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
import torch
from small_recordings import stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.config import BuilderConfig, LocalizerConfig, with_values
from nre_ros.features import load_network
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.geometry.alignment import fit_poses
from nre_ros.geometry.pose import pose_error
from nre_ros.localization import Localizer
from nre_ros.mapping import load_map
from nre_ros.mapping.sfm import SfmPoses, reconstruct
from nre_ros.mapping.sfm_agreement import agreeing_parts
from nre_ros.mapping.sfm_links import Links, colmap_camera
from nre_ros.mapping.sfm_scale import aligned_to_given, further_by_given, scaled_to_depth, scaled_to_distance
from nre_ros.mapping.sfm_views import SfmFeatures, SfmView, choose_views, pairs_to_match
from nre_ros.recordings.frame import Frame

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed: pip install pycolmap")

FRAMES = 12
OPTIONS = ["--set", "keyframe_motion=0", "--set", "points_per_keyframe=300"]


def pose(index: int) -> Pose:
    """Around the corner, nearer and further, up and down: no straight line."""
    sway = Pose.exp(torch.tensor([0, 0, 0, 0, 0.06 * (index % 2), 0], dtype=torch.float64))
    return ros_world.around(4.0 * index - 22, 2.5 + 0.1 * (index % 3)) @ sway


def frames() -> list[Frame]:
    return [ros_world.frame_from(pose(i), stamp_ns(i), noise_seed=i) for i in range(FRAMES)]


def poseless(frame: Frame) -> Frame:
    return replace(frame, map_from_cam=None, depth_m=None)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No poses, no depth."""
    return write_tum(tmp_path_factory.mktemp("sfm") / "bare", [poseless(f) for f in frames()], queries=0)


def true_poses(stamps_ns: list[int]) -> Pose:
    return stacked([pose((stamp - stamp_ns(0)) // (stamp_ns(1) - stamp_ns(0))) for stamp in stamps_ns])


def stacked(poses: list[Pose]) -> Pose:
    return Pose(torch.stack([p.rotation for p in poses]), torch.stack([p.translation for p in poses]))


def test_a_map_of_bare_images_localizes(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "map"
    assert main(["build-map", str(bare), "-o", str(path), "--sfm", *OPTIONS]) == 0
    out = capsys.readouterr()
    assert f"placed {FRAMES} of the {FRAMES} frames" in out.out and "unit arbitrary" in out.out
    assert "no pose" not in out.err
    map_ = load_map(path)
    truth = true_poses(map_.keyframe_stamps_ns.tolist())
    metric = fit_poses(map_.map_from_keyframe, truth, 2.5, with_scale=True)
    angle, distance = pose_error(metric.move(map_.map_from_keyframe), truth)
    assert float(angle.max()) < 0.3 and float(distance.max()) < 0.01, "structure from motion finds the way"

    query = ros_world.frame_from(pose(4) @ Pose.exp(torch.tensor([0, 0.02, 0, 0.05, 0.03, 0.02]).double()), 0)
    config = with_values(LocalizerConfig(), ros_world.QUICK)
    found = Localizer(map_, load_network("compact"), config).localize(query.image_rgb, query.camera)
    assert found.map_from_cam is not None
    told = metric.move(Pose(found.map_from_cam.rotation[None], found.map_from_cam.translation[None]))
    angle, distance = pose_error(told[0], query.map_from_cam)
    assert float(angle) < 0.3 and float(distance) < 0.02


@pytest.fixture(scope="module")
def solved() -> tuple[list[SfmView], SfmPoses]:
    """Of frames that have true depth and noisy odometry, one pose of which is far off."""
    config = with_values(BuilderConfig(), {"keyframe_motion": 0.0, "points_per_keyframe": 300})
    views = choose_views(noisy_frames(), config)
    return views, reconstruct(views, lambda *_: None)[0]


def noisy_frames() -> list[Frame]:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(FRAMES, 6, generator=generator, dtype=torch.float64) * 0.002
    noise[5, 3] = 2.0
    return [replace(f, map_from_cam=f.map_from_cam @ Pose.exp(noise[i])) for i, f in enumerate(frames())]


def test_the_same_images_give_the_same_poses(solved: tuple[list[SfmView], SfmPoses]) -> None:
    views, found = solved
    again = reconstruct(views, lambda *_: None)[0]
    assert found.world_from_cam.keys() == again.world_from_cam.keys()
    assert all(torch.equal(pose.matrix(), again.world_from_cam[k].matrix()) for k, pose in found.world_from_cam.items())


def test_views_of_two_places_become_two_parts(solved: tuple[list[SfmView], SfmPoses]) -> None:
    """The other place is the mirrored one: no feature of it looks the same."""
    config = with_values(BuilderConfig(), {"keyframe_motion": 0.0, "points_per_keyframe": 200})
    mirrored = [replace(poseless(f), image_rgb=np.ascontiguousarray(f.image_rgb[:, ::-1])) for f in frames()[:5]]
    views = [*solved[0][:7], *choose_views(mirrored, config)]
    parts = reconstruct(views, lambda *_: None, most_parts=3)
    assert [set(part.world_from_cam) for part in parts] == [set(range(7)), set(range(7, 12))]


@pytest.mark.parametrize("how", ["odometry", "depth", "distance"])
def test_metres_come_from_what_there_is(how: str, solved: tuple[list[SfmView], SfmPoses]) -> None:
    views, found = solved
    if how == "odometry":
        aligned = aligned_to_given(found, views)
        assert torch.nonzero(~aligned.inlier).flatten().tolist() == [5]
        metric, tolerance = aligned.b_from_a, 0.01
    elif how == "depth":
        (metric, count, spread), tolerance = scaled_to_depth(found), 0.005
        assert count > 1000 and spread < 0.02
    else:
        apart = float((pose(FRAMES - 1).translation - pose(0).translation).norm())
        metric, tolerance = scaled_to_distance(found, views, 0, FRAMES - 1, apart), 0.01
    truth = true_poses([view.stamp_ns for view in views])
    placed = stacked([found.world_from_cam[k] for k in range(FRAMES)])
    scale = float(fit_poses(placed, truth, 2.5, with_scale=True).scale)
    assert abs(float(metric.scale) / scale - 1) < tolerance
    if how == "odometry":
        angle, distance = pose_error(metric.move(placed), truth)
        assert float(angle.max()) < 0.3 and float(distance.max()) < 0.02, "the map is in odometry's frame"


def test_a_map_in_metres_of_the_odometry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = write_tum(tmp_path / "rich", noisy_frames(), queries=0)
    words = ["--sfm", "--sfm-scale", "odometry", "--refine-poses", *OPTIONS]
    assert main(["build-map", str(recording), "-o", str(tmp_path / "map"), *words]) == 0
    text = capsys.readouterr().out
    assert f"{FRAMES - 1} of {FRAMES} poses agree" in text and "unit metre" in text and "poses" in text
    map_ = load_map(tmp_path / "map")
    assert len(map_.keyframe_stamps_ns) == FRAMES - 1, "what contradicts odometry is left out"
    angle, distance = pose_error(map_.map_from_keyframe, true_poses(map_.keyframe_stamps_ns.tolist()))
    assert float(angle.max()) < 0.3 and float(distance.max()) < 0.02


def refused(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What stderr says, in one line, of a map that cannot be made; nothing is left."""
    assert main(["build-map", str(recording), "-o", str(tmp_path / "map"), *words]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    assert not (tmp_path / "map").exists()
    return text


def test_what_cannot_be_placed_is_told(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--sfm" in refused(bare, tmp_path, capsys)
    assert "at least 3 frames" in refused(bare, tmp_path, capsys, "--sfm", "--every", "6", *OPTIONS)
    few = ["--sfm", "--every", "2", *OPTIONS]
    assert "0 of 6 placed frames have a pose" in refused(bare, tmp_path, capsys, *few, "--sfm-scale", "odometry")
    assert "0 points have measured depth" in refused(bare, tmp_path, capsys, *few, "--sfm-scale", "depth")
    assert "'here'" in refused(bare, tmp_path, capsys, "--sfm", "--sfm-distance", "rgb/0.png", "rgb/1.png", "here")
    words = ["--sfm", "--every", "3", "--sfm-distance", "rgb/0.png", "rgb/4.png", "1", *OPTIONS]
    assert "rgb/4.png, which is no frame of bare" in refused(bare, tmp_path, capsys, *words)
    assert "give --sfm too" in refused(bare, tmp_path, capsys, "--sfm-scale", "odometry")


def test_without_pycolmap_the_way_to_it_is_told(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)  # what Python itself takes for "cannot be imported"
    assert "pip install pycolmap" in refused(bare, tmp_path, capsys, "--sfm")


def test_images_that_show_nothing_in_common_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    apart = [
        replace(poseless(f), image_rgb=np.kron(rng.integers(0, 256, (30, 40, 3)), np.ones((8, 8, 1))).astype(np.uint8))
        for f in frames()[:4]
    ]
    grey = [replace(f, image_rgb=np.full((240, 320, 3), 128, np.uint8)) for f in apart]
    still = [poseless(f) for f in itertools.repeat(frames()[0], 4)]
    still = [replace(f, stamp_ns=stamp_ns(i)) for i, f in enumerate(still)]
    cases = {"apart": (apart, "show the same things"), "grey": (grey, "texture"), "still": (still, "must move")}
    for name, (images, said) in cases.items():
        recording = write_tum(tmp_path / name, images, queries=0)
        assert said in refused(recording, tmp_path, capsys, "--sfm", *OPTIONS)


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        (DistortionModel.PLUMB_BOB, ()),
        (DistortionModel.PLUMB_BOB, (-0.2, 0.05, 0.001, -0.002, 0.01)),
        (DistortionModel.RATIONAL, (0.1, 0.05, 0.001, -0.002, 0.01, 0.2, 0.03, 0.001)),
        (DistortionModel.EQUIDISTANT, (0.02, -0.01, 0.003, -0.001)),
    ],
)
def test_colmap_gets_the_camera_as_it_is(model: DistortionModel, distortion: tuple[float, ...]) -> None:
    camera = Camera(640, 480, 500.0, 510.0, 317.0, 242.5, model, distortion)
    generator = torch.Generator().manual_seed(0)
    xyz_cam = torch.rand(50, 3, generator=generator, dtype=torch.float64) - 0.5 + torch.tensor([0, 0, 1.5]).double()
    uv_px, _ = camera.project(xyz_cam)
    theirs = np.array([colmap_camera(pycolmap, camera).img_from_cam(point) for point in xyz_cam.numpy()])
    np.testing.assert_allclose(theirs.reshape(-1, 2) - 0.5, uv_px.numpy(), atol=1e-6)


def test_many_views_are_matched_with_those_that_follow_and_those_alike() -> None:
    """Two rounds of one way: what looks alike is a round apart, and must be found among 240 views."""
    rng = np.random.default_rng(0)
    places = rng.random((120, 30, 128)) ** 4
    views = []
    for k in range(240):
        descriptors = (255 * (places[k % 120] + 0.01 * rng.random((30, 128))).clip(0, 1)).astype(np.uint8)
        features = SfmFeatures(np.zeros((30, 6), np.float32), descriptors)
        views.append(SfmView(k, f"{k}", k, ros_world.CAMERA, features, torch.full((30,), torch.nan), None))
    pairs = pairs_to_match(views)
    assert len(pairs) < 240 * 60 and all(i < j for i, j in pairs)
    assert {(k, k + 1) for k in range(239)} <= set(pairs)
    assert {(k, k + 120) for k in range(120)} <= set(pairs)
    assert len(pairs_to_match(views[:100])) == 100 * 99 / 2, "of few, every pair"


def test_what_contradicts_the_matches_is_taken_out() -> None:
    """Views in a row see points that are near and far. One is misplaced; then half of them are in another scale."""
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(60, 3, generator=generator, dtype=torch.float64) * 4 + torch.tensor([-2, -2, 3]).double()
    centres = torch.rand(10, 3, generator=generator, dtype=torch.float64)
    right = {k: Pose(torch.eye(3, dtype=torch.float64), centres[k]) for k in range(10)}
    rays = [torch.nn.functional.normalize(xyz - centre, dim=1).numpy() for centre in centres]
    seen = np.arange(60)[:, None].repeat(2, 1)
    links = Links(rays, [400.0] * 10, dict.fromkeys(itertools.combinations(range(10), 2), seen))
    assert [part.views for part in agreeing_parts(links, right)] == [set(range(10))]

    shifted = right | {4: Pose(right[4].rotation, right[4].translation + 0.3)}
    assert [part.views for part in agreeing_parts(links, shifted)] == [set(range(10)) - {4}]

    bent = {k: Pose(pose.rotation, pose.translation * (1 if k < 6 else 5)) for k, pose in right.items()}
    assert agreeing_parts(links, bent)[0].views == set(range(6))

    halves = {pair: seen for pair in links.matches if pair == (4, 5) or (pair[0] < 5) == (pair[1] < 5)}
    apart = agreeing_parts(Links(rays, [400.0] * 10, halves), right)
    assert sorted(min(part.views) for part in apart) == [0, 5], "one link of 60 matches is not enough"


def test_a_further_part_is_placed_by_odometry_only_where_it_agrees(solved: tuple[list[SfmView], SfmPoses]) -> None:
    views, found = solved
    placed = further_by_given(found, views)
    assert set(placed) == set(range(FRAMES)) - {5}, "the frame whose odometry is wrong has no other support"
    angle, distance = pose_error(stacked([*placed.values()]), stacked([pose(k) for k in placed]))
    assert float(angle.max()) < 0.3 and float(distance.max()) < 0.02
    wrong = [replace(view, given=views[(5 * k) % FRAMES].given) for k, view in enumerate(views)]
    assert further_by_given(found, wrong) == {}


def test_frames_that_show_nothing_new_are_passed_over_unless_wanted() -> None:
    seen = frames()
    doubled = [f for f in seen[:3] for _ in range(2)]
    config = with_values(BuilderConfig(), {"points_per_keyframe": 300})
    assert [view.index for view in choose_views(doubled, config)] == [0, 2, 4]
    wanted = iter([False, False, False, True, False, False])
    assert [view.index for view in choose_views(doubled, config, lambda frame: next(wanted))] == [0, 2, 3, 4]
