"""The life of a map: looked into, checked, made smaller, merged with a second session in another frame and unit."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import ros_world
import torch
from small_recordings import write_tum

from nre_ros.cli.main import main
from nre_ros.config import BuilderConfig, LocalizerConfig, with_values
from nre_ros.errors import MapError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Pose, pose_error
from nre_ros.geometry.alignment import Similarity
from nre_ros.localization import Localizer
from nre_ros.localization.session import SessionAlignment, align_session
from nre_ros.mapping import Map, MapBuilder, load_map, save_map
from nre_ros.mapping.coverage import coverage_of
from nre_ros.mapping.inspection import inspect_map, reprojection_errors_px
from nre_ros.mapping.map import MapArrays
from nre_ros.mapping.map_file import FILE_NAME
from nre_ros.mapping.merge import check_mergeable, join, same_landmarks
from nre_ros.mapping.prune import array_bytes, prune, ranked_landmarks
from nre_ros.mapping.revisit import Revisit
from nre_ros.mapping.subset import (
    KEYFRAME_ARRAYS,
    LANDMARK_ARRAYS,
    OBSERVATION_ARRAYS,
    VOCABULARY_ARRAYS,
    keyframe_of,
    moved,
    subset,
)
from nre_ros.recordings import Frame

QUICK = with_values(LocalizerConfig(), ros_world.QUICK)
OTHER_FRAME = Similarity(
    torch.tensor(2.5, dtype=torch.float64),
    Pose.exp(torch.tensor([0.3, -1.2, 0.5, 0, 0, 0], dtype=torch.float64)).rotation,
    torch.tensor([4.0, 1.0, -7.0], dtype=torch.float64),
)
"""second_from_first."""
SECOND_VIEWS = (0.4, 1.2, 2.3, 3.1, 3.8, 4.7, 5.4)


def every(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def second_frames() -> list[Frame]:
    """A session between the map's views, in another frame and an arbitrary unit."""
    frames = []
    for i, index in enumerate(SECOND_VIEWS):
        frame = ros_world.frame(index, 10**12 + i * 10**9, noise_seed=i)
        assert frame.map_from_cam is not None and frame.depth_m is not None
        pose = OTHER_FRAME.move(Pose(frame.map_from_cam.rotation[None], frame.map_from_cam.translation[None]))[0]
        frames.append(dataclasses.replace(frame, map_from_cam=pose, depth_m=frame.depth_m * float(OTHER_FRAME.scale)))
    return frames


def built(frames: list[Frame], network: FeatureNetwork, unit: str) -> Map:
    builder = MapBuilder(network, with_values(BuilderConfig(), {"keyframe_motion": 0.0}), unit=unit)
    for frame in frames:
        assert builder.add(frame)
    return builder.build()


@pytest.fixture(scope="module")
def session(network: FeatureNetwork) -> Map:
    return built(second_frames(), network, "arbitrary")


@pytest.fixture(scope="module")
def aligned(corner_map: Map, session: Map, network: FeatureNetwork) -> SessionAlignment:
    return align_session(Localizer(corner_map, network, QUICK), session, enumerate(second_frames()))


def described(first: Map, second_in_first: Map, network: FeatureNetwork) -> Map:
    revisit = Revisit(first, second_in_first, network)
    for keyframe, frame in enumerate(second_frames()):
        revisit.add(keyframe, frame)
    return revisit.session()


@pytest.fixture(scope="module")
def merged(corner_map: Map, session: Map, aligned: SessionAlignment, network: FeatureNetwork) -> tuple[Map, int]:
    second = described(corner_map, moved(session, aligned.first_from_second), network)
    return join(corner_map, second, same_landmarks(corner_map, second, 0.01))


def found_share(map_: Map, network: FeatureNetwork, views: tuple[float, ...]) -> float:
    localizer, right = Localizer(map_, network, QUICK), 0
    for index in views:
        frame = ros_world.frame(index, 0, noise_seed=9)
        answer = localizer.localize(frame.image_rgb, frame.camera)
        if answer.accepted and answer.map_from_cam is not None and frame.map_from_cam is not None:
            degrees, metres = pose_error(answer.map_from_cam, frame.map_from_cam)
            right += bool(degrees < 0.5 and metres < 0.03)
    return right / len(views)


def test_every_array_belongs_somewhere() -> None:
    """So that a new one cannot be forgotten by what takes maps apart."""
    known = [*LANDMARK_ARRAYS, *KEYFRAME_ARRAYS, *OBSERVATION_ARRAYS, *VOCABULARY_ARRAYS, "keyframe_start"]
    assert sorted(known) == sorted(item.name for item in dataclasses.fields(MapArrays))


# parts of maps


def test_the_subset_of_everything_is_the_map(corner_map: Map) -> None:
    whole = subset(corner_map, every(corner_map.landmark_count), every(corner_map.keyframe_count))
    assert whole.digest == corner_map.digest


def test_a_subset_keeps_what_its_observations_say(corner_map: Map) -> None:
    landmarks = torch.rand(corner_map.landmark_count, generator=torch.Generator().manual_seed(0)) < 0.3
    keyframes = every(corner_map.keyframe_count)
    keyframes[1] = False
    part = subset(corner_map, landmarks, keyframes)
    a, b = corner_map.arrays, part.arrays
    kept = landmarks[a.landmark.long()] & keyframes[keyframe_of(corner_map)]
    torch.testing.assert_close(b.xyz_map[b.landmark.long()], a.xyz_map[a.landmark[kept].long()])
    assert torch.equal(b.coarse[b.landmark.long()], a.coarse[a.landmark[kept].long()])
    assert torch.equal(b.keyframe_stamp_ns[keyframe_of(part)], a.keyframe_stamp_ns[keyframe_of(corner_map)[kept]])
    assert int(torch.bincount(b.landmark, minlength=part.landmark_count).min()) > 0


def test_moving_a_map_moves_no_projection(corner_map: Map) -> None:
    before, after = reprojection_errors_px(corner_map), reprojection_errors_px(moved(corner_map, OTHER_FRAME))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
    assert moved(corner_map, OTHER_FRAME).median_depth == pytest.approx(2.5 * corner_map.median_depth)


# check


def spoil(map_: Map, **arrays: torch.Tensor) -> Map:
    return dataclasses.replace(map_, arrays=dataclasses.replace(map_.arrays, **arrays), file=None)


def faults_of(map_: Map, folder: Path) -> str:
    save_map(map_, folder)
    return "\n".join(inspect_map(folder).faults)


def test_a_sound_map_has_no_fault(corner_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", "check", str(corner_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "ok" and all(line.startswith(("checked", "remark")) for line in lines[:-1])


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("keyframe_pose", lambda a: a * torch.tensor([1.01, 1, 1, 1]), "the rotation of"),
        ("keyframe_pose", lambda a: a * torch.tensor([-1.0, 1, 1, 1]), "the rotation of"),
        ("keyframe_pose", lambda a: a + 0.3 * torch.eye(4)[0, :, None] * torch.eye(4)[3], "over 10 px"),
        ("keyframe_pose", lambda a: a + torch.eye(4)[3], "the last row"),
        ("xyz_map", lambda a: a + torch.tensor([4.0, -4.0, 0.0]), "behind the camera"),
        ("xyz_map", lambda a: a[:1].expand(len(a), 3).contiguous(), "exactly where another"),
        ("uv_px", lambda a: a + 1000, "outside their image"),
        ("landmark", lambda a: torch.where(a == 3, 4, a).int(), "no keyframe sees landmark 3"),
        ("landmark", lambda a: torch.where(a == 3, 4, a).int(), "a second time in the same keyframe"),
        ("keyframe_start", lambda a: torch.cat([a[:1], a[2:], a[-1:]]), "sees no landmark"),
    ],
)
def test_faults_are_told(
    corner_map: Map, tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    assert said in faults_of(spoil(corner_map, **{name: change(getattr(corner_map.arrays, name))}), tmp_path)


def test_a_second_copy_of_what_one_keyframe_sees_is_remarked(corner_map: Map, tmp_path: Path) -> None:
    a, rows = corner_map.arrays, corner_map.observations_of(2)
    seen = a.landmark[rows].long()
    copied = {name: torch.cat([getattr(a, name), getattr(a, name)[seen]]) for name in LANDMARK_ARRAYS}
    copied["xyz_map"][corner_map.landmark_count :, 0] += 0.3
    landmark = a.landmark.clone()
    landmark[rows] = corner_map.landmark_count + torch.arange(len(seen), dtype=torch.int32)
    save_map(spoil(corner_map, landmark=landmark, **copied), tmp_path)
    assert "keyframe 2 shares no landmark with any other" in "\n".join(inspect_map(tmp_path).remarks)


def test_a_damaged_file_is_one_fault_a_line(
    corner_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((corner_path / FILE_NAME).read_bytes())
    for damaged in (data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 0x70])):
        (tmp_path / FILE_NAME).write_bytes(damaged)
        assert main(["map", "check", str(tmp_path)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "bad" and lines[0].startswith("fault") and str(tmp_path) in lines[0]


# info


def test_coverage_counts_cells(corner_map: Map) -> None:
    coverage = coverage_of(corner_map)
    rows = corner_map.observations_of(2)
    uv_px = corner_map.arrays.uv_px[rows].numpy()
    cells = {(int((u + 0.5) // 40), int((v + 0.5) // 40)) for u, v in uv_px}
    assert int(coverage.landmarks[2]) == len(uv_px)
    assert float(coverage.share[2]) == pytest.approx(len(cells) / 48)


def test_info_draws_the_map(corner_path: Path, tmp_path: Path) -> None:
    assert main(["map", "info", str(corner_path), "--picture", str(tmp_path / "top.png")]) == 0
    picture = cv2.imread(str(tmp_path / "top.png"))
    assert picture.shape[0] > 300 and picture.std() > 10


def test_a_picture_that_cannot_be_written(
    corner_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("no folder/top.png", "top.nothing"):
        assert main(["map", "info", str(corner_path), "--picture", str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.count("\n") == 1


# prune


def test_ranking_is_a_permutation_and_covers_first(corner_map: Map) -> None:
    ranked = ranked_landmarks(corner_map)
    assert sorted(ranked) == list(range(corner_map.landmark_count))
    some = corner_map.landmark_count // 5
    chosen = torch.zeros(corner_map.landmark_count, dtype=torch.bool)
    chosen[torch.from_numpy(ranked[:some])] = True
    best = subset(corner_map, chosen, every(corner_map.keyframe_count))
    drawn = torch.randperm(corner_map.landmark_count, generator=torch.Generator().manual_seed(0))[:some]
    random = subset(corner_map, torch.zeros_like(chosen).index_fill_(0, drawn, True), every(corner_map.keyframe_count))
    assert float(coverage_of(best).share.mean()) > float(coverage_of(random).share.mean())
    assert best.observation_count > random.observation_count


def test_limits_are_kept(corner_map: Map) -> None:
    assert prune(corner_map, max_landmarks=200).landmark_count == 200
    for share in (0.3, 0.7):
        limit = int(share * array_bytes(corner_map))
        assert 0.8 * limit < array_bytes(prune(corner_map, max_bytes=limit)) <= limit
    often = prune(corner_map, min_observations=3)
    assert 0 < often.landmark_count < corner_map.landmark_count
    with pytest.raises(MapError, match="hold no landmark"):
        prune(corner_map, max_bytes=1000)
    with pytest.raises(MapError, match="seen by 99 keyframes"):
        prune(corner_map, min_observations=99)


def test_a_keyframe_twice_adds_nothing(corner_map: Map) -> None:
    """Doubled in all its arrays, one of the two goes; without limits nothing else changes."""
    a, rows = corner_map.arrays, corner_map.observations_of(corner_map.keyframe_count - 1)
    doubled = {name: torch.cat([getattr(a, name), getattr(a, name)[-1:]]) for name in KEYFRAME_ARRAYS}
    doubled |= {name: torch.cat([getattr(a, name), getattr(a, name)[rows]]) for name in OBSERVATION_ARRAYS}
    end = torch.tensor([len(doubled["landmark"])])
    twice = spoil(corner_map, **doubled, keyframe_start=torch.cat([a.keyframe_start, end]))
    pruned = prune(twice)
    assert pruned.keyframe_count <= corner_map.keyframe_count
    assert pruned.digest == prune(corner_map).digest


def test_a_pruned_map_still_localizes(corner_path: Path, network: FeatureNetwork, tmp_path: Path) -> None:
    half = array_bytes(load_map(corner_path)) / 2e6
    assert main(["map", "prune", str(corner_path), "-o", str(tmp_path / "half"), "--max-mb", str(half)]) == 0
    assert not inspect_map(tmp_path / "half").faults
    assert found_share(load_map(tmp_path / "half"), network, (0.5, 2.6, 4.4)) == 1


def test_pruning_needs_a_limit_and_spares_its_input(
    corner_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (corner_path / FILE_NAME).read_bytes()
    for options, said in (
        (["-o", tmp_path / "a"], "nothing to prune by"),
        (["-o", tmp_path / "a", "--max-mb", "-1"], "--max-mb is -1"),
        (["-o", corner_path, "--max-landmarks", "50"], "is a map to be read"),
    ):
        assert main(["map", "prune", str(corner_path), *map(str, options)]) == 1
        assert said in capsys.readouterr().err
    assert (corner_path / FILE_NAME).read_bytes() == before and not (tmp_path / "a").exists()


# merge


def test_a_session_is_aligned(corner_map: Map, aligned: SessionAlignment) -> None:
    first_from_first = aligned.first_from_second @ OTHER_FRAME
    assert int(aligned.alignment.inlier.sum()) >= 6
    assert float(first_from_first.scale) == pytest.approx(1, abs=0.003)
    apart = (first_from_first.transform(corner_map.arrays.xyz_map) - corner_map.arrays.xyz_map).norm(dim=1)
    assert float(apart.median()) < 0.01


def test_what_both_saw_is_one(corner_map: Map, session: Map, merged: tuple[Map, int]) -> None:
    both, fused = merged
    assert fused > 0.2 * min(corner_map.landmark_count, session.landmark_count)
    assert both.landmark_count == corner_map.landmark_count + session.landmark_count - fused
    assert both.observation_count == corner_map.observation_count + session.observation_count
    assert both.keyframe_count == corner_map.keyframe_count + session.keyframe_count
    assert (both.unit, both.frame_id) == ("metre", corner_map.frame_id)
    seen = keyframe_of(both) < corner_map.keyframe_count
    by_first = torch.bincount(both.arrays.landmark[seen], minlength=both.landmark_count) > 0
    by_second = torch.bincount(both.arrays.landmark[~seen], minlength=both.landmark_count) > 0
    assert int((by_first & by_second).sum()) == fused


def test_a_merged_map_is_sound_and_localizes(merged: tuple[Map, int], network: FeatureNetwork, tmp_path: Path) -> None:
    save_map(merged[0], tmp_path)
    report = inspect_map(tmp_path)
    assert not report.faults
    assert float(reprojection_errors_px(merged[0]).median()) < 1
    assert found_share(load_map(tmp_path), network, (0.5, 2.6, 4.4)) == 1
    assert sum("camera" in line for line in report.checked) >= 1 and len(merged[0].cameras) == 1


def test_keyframes_of_the_session_are_retrieved_after_a_merge(merged: tuple[Map, int], network: FeatureNetwork) -> None:
    localizer = Localizer(merged[0], network, QUICK)
    for i, frame in enumerate(second_frames()):
        answer = localizer.localize(frame.image_rgb, frame.camera)
        assert answer.keyframes[0] == merged[0].keyframe_count - len(SECOND_VIEWS) + i


def test_a_session_without_its_images_is_refused(corner_map: Map, session: Map, network: FeatureNetwork) -> None:
    with pytest.raises(MapError, match="name the recording"):
        align_session(Localizer(corner_map, network, QUICK), session, [])
    with pytest.raises(MapError, match="name the recording"):
        Revisit(corner_map, session, network).session()


def test_another_place_is_refused(session: Map, corner_map: Map, network: FeatureNetwork) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    views = [(i, dataclasses.replace(frame, image_rgb=noise)) for i, frame in enumerate(second_frames())]
    with pytest.raises(MapError, match=r"only 0 of 7 images .* do not show the same place"):
        align_session(Localizer(corner_map, network, QUICK), session, views)


def test_a_bent_session_is_refused(session: Map, corner_map: Map, network: FeatureNetwork) -> None:
    """Its keyframes' poses belong to other images."""
    order = torch.tensor([3, 0, 5, 1, 6, 2, 4])
    spread = session.arrays.keyframe_pose.clone()
    spread[:, :3, 3] += 20 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bent = spoil(session, keyframe_pose=spread[order])
    with pytest.raises(MapError, match=r"agree on where the second map lies|scale is known"):
        align_session(Localizer(corner_map, network, QUICK), bent, enumerate(second_frames()))


def test_maps_that_cannot_be_one(corner_map: Map, session: Map) -> None:
    for first, second, said in (
        (corner_map, corner_map, "same one"),
        (corner_map, dataclasses.replace(session, network_hash="f" * 16, file=None), "made by network"),
        (session, corner_map, "name the second first"),
    ):
        with pytest.raises(MapError, match=said):
            check_mergeable(first, second)
    check_mergeable(corner_map, session)


# ageing


def test_what_is_gone_is_told_from_what_is_there(
    corner_map: Map, network: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the sessions one of the two walls was painted anew."""
    texture = ros_world._texture
    monkeypatch.setattr(ros_world, "_texture", lambda wall: texture(7 if wall == 1 else wall))
    frames = second_frames()
    second = moved(built(frames, network, "arbitrary"), OTHER_FRAME.inverse())
    revisit = Revisit(corner_map, second, network)
    for keyframe, frame in enumerate(frames):
        revisit.add(keyframe, frame)
    x, y, _ = corner_map.arrays.xyz_map.unbind(1)
    looked, missing = revisit.looks >= 3, revisit.seen == 0
    painted, untouched = looked & (y < -0.2), looked & (x > 0.2)
    assert int(painted.sum()) > 50 and int(untouched.sum()) > 50
    assert float(missing[painted].double().mean()) > 0.3
    assert float(missing[untouched].double().mean()) < 0.05


def test_merging_by_command(
    corner_path: Path, session: Map, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = write_tum(tmp_path / "recording", second_frames(), queries=0)
    save_map(session, tmp_path / "second")
    file = tmp_path / "figures.json"
    argv = ["map", "merge", str(corner_path), str(tmp_path / "second"), "-o", str(tmp_path / "both")]
    argv += ["--recording", str(recording), "--json", str(file)]
    argv += [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]
    assert main([*argv, "--age-out", "3"]) == 0
    figures = json.loads(file.read_text())
    assert figures["images_agreeing"] >= 6 and figures["residual_distance_median"] < 0.02
    assert figures["scale"] == pytest.approx(1 / 2.5, rel=0.003)
    assert figures["landmarks_aged_out"] < 0.05 * load_map(corner_path).landmark_count
    assert load_map(tmp_path / "both").landmark_count == figures["landmarks"]
    assert "images_agreeing" in capsys.readouterr().out
    assert main(["map", "check", str(tmp_path / "both")]) == 0
    assert main([*argv[:5], str(corner_path), *argv[6:]]) == 1
    assert "is a map to be read" in capsys.readouterr().err
    assert math.isfinite(figures["scale_deviation"])
