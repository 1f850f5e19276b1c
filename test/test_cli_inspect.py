"""``nre_ros inspect``: what it says of a recording, and that the command it proposes opens it."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from raw_bags import RawBag
from recording_formats import write_colmap, write_seven_scenes, write_transforms
from small_recordings import make_frames, pose_at, stamp_ns, write_tum

from nre_ros.cli import build_map
from nre_ros.cli.main import main
from nre_ros.cli.recording_options import recording_of
from nre_ros.geometry.pose_track import rigid_from_pose
from nre_ros.recordings import Frame, bag_messages
from nre_ros.recordings.bag_writer import BASE_FROM_CAMERA, BagWriter

SECOND_NS = 10**9


def _inspect(path: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[dict[str, Any], str]:
    """The figures, and all that was printed."""
    file = path.with_name(f"{path.name}.json")
    assert main(["inspect", str(path), "--json", str(file)]) == code
    shown = capsys.readouterr()
    return json.loads(file.read_text()), shown.out + shown.err


def _frames_of(command: str) -> list[Frame]:
    """The frames that a proposed command would give to the builder."""
    parser = argparse.ArgumentParser()
    build_map.add_parser(parser.add_subparsers())
    args = parser.parse_args(shlex.split(command)[1:])
    return list(recording_of(args).frames(args.split))


def test_a_good_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        for frame in make_frames(10, depth=True):
            writer.write_frame(frame)
    figures, shown = _inspect(tmp_path / "bag", capsys)
    assert figures["findings"] == [] and figures["cameras"][0]["findings"] == []
    assert figures["commands"] == [f"nre_ros build-map {tmp_path / 'bag'} -o MAP"]
    rates = {topic["name"]: (topic["count"], round(topic["hz"], 3), topic["detail"]) for topic in figures["topics"]}
    assert rates["/camera/image_raw"] == (10, 10.0, "32x24 rgb8")
    assert rates["/camera/camera_info"] == (10, 10.0, "32x24 plumb_bob")
    assert figures["cameras"][0]["skews_ms"]["/camera/depth/image_raw"] == [0, 0]
    assert "poses of /tf from map: 100 % of the images" in shown and "!" not in shown
    frames = _frames_of(figures["commands"][0])
    assert len(frames) == 10 and all(f.map_from_cam is not None and f.depth_m is not None for f in frames)


def test_two_cameras_two_sources_of_poses_and_a_moving_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawBag(tmp_path / "bag") as bag:
        for side in ("left", "right"):
            bag.add_frames(make_frames(10), f"/{side}/image", f"/{side}/camera_info", side)
        for i in range(10):
            rigid = rigid_from_pose(pose_at(stamp_ns(i)))
            bag.add_tf("/tf", stamp_ns(i), "odom", "base_link", rigid)
            bag.add_tf("/tf", stamp_ns(i), "base_link", "left", rigid_from_pose(BASE_FROM_CAMERA))
            bag.add_pose("/slam", stamp_ns(i), "map", pose_at(stamp_ns(i)), bag_messages.ODOMETRY, child="base_link")
    figures, shown = _inspect(tmp_path / "bag", capsys)
    left, right = figures["cameras"]
    assert "the bag has 2 cameras: choose one with --image-topic /left/image or /right/image" in figures["findings"]
    assert any("no /tf_static" in finding for finding in figures["findings"])
    assert [(source["name"], source["posed"]) for source in left["sources"]] == [("/slam", 1.0), ("/tf from odom", 1.0)]
    assert any("may move on the robot" in finding for finding in left["findings"])
    assert "no transform leads from there to the camera 'right'" in right["trouble"]
    assert right["options"] == {
        "image_topic": "/right/image",
        "pose_topic": "/slam",
        "camera_extrinsics": "x y z qx qy qz qw",
    }
    (command,) = figures["commands"]
    assert command.endswith("--image-topic /left/image --pose-topic /slam")
    assert all(frame.map_from_cam is not None for frame in _frames_of(command)) and "100 %" in shown


def test_stamps_clocks_and_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = make_frames(30, depth=True)
    with RawBag(tmp_path / "bag") as bag:
        for i, frame in enumerate(frames):
            late = frame.stamp_ns + (7 * SECOND_NS if i >= 15 else 0)
            head = bag_messages.header(late, "cam")
            bag.add("/cam/image", late + 3 * SECOND_NS, bag_messages.image_message(head, frame.image_rgb))
            bag.add("/cam/camera_info", late, bag_messages.info_message(head, frame.camera))
            assert frame.depth_m is not None
            depth = bag_messages.header(late + 30_000_000, "cam")
            bag.add("/cam/depth", late, bag_messages.depth_message(depth, "16UC1", frame.depth_m))
            bag.add_pose("/pose", late, "map", pose_at(frame.stamp_ns))
            zero = bag_messages.header(0, "base_link")
            bag.add("/zero", late, bag_messages.pose_message(zero, rigid_from_pose(pose_at(frame.stamp_ns))))
    figures, _ = _inspect(tmp_path / "bag", capsys)
    text = "\n".join([*figures["findings"], *figures["cameras"][0]["findings"]])
    assert "the header stamps of /cam/image are +3.000 s (median) from the time of recording" in text
    assert "the stamps of /cam/depth are 30.0 ms (median, at most 30.0 ms) from those of /cam/image" in text
    assert "/cam/image has a gap of 7.1 s, 1.4 s after its start (usual: 0.100 s)" in text
    assert "all header stamps of /zero are zero" in text
    assert "no transform leads to the camera's frame 'cam'" in text
    assert figures["commands"][0].endswith("--pose-topic /pose")


def test_bag_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        for frame in make_frames(20):
            writer.write_frame(frame)
    file = tmp_path / "bag/bag.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    figures, shown = _inspect(tmp_path / "bag", capsys)
    assert "is cut off" in figures["findings"][0] and figures["findings"][0] in shown
    assert len(_frames_of(figures["commands"][0])) > 3


def test_bag_without_poses_is_refused_after_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
    figures, shown = _inspect(tmp_path / "bag", capsys, 1)
    assert figures["commands"] == [] and "/cam/image" in shown
    assert "no map can be made of" in shown and "the bag has no poses: record /tf and /tf_static" in shown


def test_bag_without_images_or_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawBag(tmp_path / "poses") as bag:
        bag.add_pose("/pose", stamp_ns(0), "map", pose_at(stamp_ns(0)))
    assert "it has no colour images" in _inspect(tmp_path / "poses", capsys, 1)[1]
    with RawBag(tmp_path / "uncalibrated") as bag:
        bag.add_frames(make_frames(), info_topic="")
    assert "record /cam/camera_info too" in _inspect(tmp_path / "uncalibrated", capsys, 1)[1]


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = make_frames(4, depth=True)
    expected = {
        write_tum(tmp_path / "tum", frames): ("TUM RGB-D folder", True, {"map": 3, "query": 1}, "metre"),
        write_colmap(tmp_path / "colmap", frames): ("images with a pose each", False, {}, "arbitrary"),
        write_seven_scenes(tmp_path / "seven", frames, 1): (
            "images with a pose each", True, {"map": 3, "query": 1}, "metre",
        ),
        write_transforms(tmp_path / "nerf", frames, 1): (
            "images with a pose each", False, {"map": 3, "query": 1}, "arbitrary",
        ),
    }  # fmt: skip
    for path, facts in expected.items():
        figures, shown = _inspect(path, capsys)
        assert tuple(figures[name] for name in ("kind", "depth", "roles", "unit")) == facts
        assert (figures["images"], figures["poses"]) == (4, 4)
        assert figures["commands"][0] in shown
        assert len(_frames_of(figures["commands"][0])) == (3 if facts[2] else 4)
    assert "applied_transform" in _inspect(tmp_path / "nerf", capsys)[1]


def test_nothing_and_nonsense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nowhere")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 1
    assert "is no recording: expected a rosbag2" in capsys.readouterr().err
    write_tum(tmp_path / "tum", make_frames(2))
    (tmp_path / "tum/groundtruth.txt").unlink()
    assert main(["inspect", str(tmp_path / "tum")]) == 1
    assert "no map can be made of" in capsys.readouterr().err


def test_calibration_sent_once_is_no_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames(10)[:1])
        bag.add_frames(make_frames(10)[1:], info_topic="")
        for i in range(10):
            bag.add_tf("/tf", stamp_ns(i), "map", "cam", rigid_from_pose(pose_at(stamp_ns(i))))
    figures, _ = _inspect(tmp_path / "bag", capsys)
    assert figures["cameras"][0]["findings"] == [] and figures["commands"]
