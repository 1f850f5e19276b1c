"""The same real images, offline and as a bag replayed over DDS to the real node: the same poses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from nre_ros.config import BuilderConfig, LocalizerConfig
from nre_ros.features import load_network
from nre_ros.geometry import Pose, pose_error
from nre_ros.localization import Localizer
from nre_ros.mapping import MapBuilder, load_map, save_map
from nre_ros.recordings import Frame, open_recording
from nre_ros.recordings.bag_writer import IMAGE_TOPIC, INFO_TOPIC, BagWriter

pytest.importorskip("rclpy", reason="needs ROS 2: make setup installs it")
from nre_ros.cli.children import Child, ros_environment

MAP_FRAMES, QUERIES = 10, 3


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> list[Frame]:
    recording = open_recording(shared_data / "data" / "eval" / "fox")
    return [frame for frame, _ in zip(recording.frames(), range(MAP_FRAMES + QUERIES), strict=False)]


@pytest.fixture(scope="module")
def map_path(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = MapBuilder(load_network(device="cpu"), BuilderConfig(points_per_keyframe=800))
    for index, frame in enumerate(frames):
        if index % 4 != 2:
            builder.add(frame)
    path = tmp_path_factory.mktemp("fox") / "map"
    save_map(builder.build(), path)
    return path


def test_poses_through_the_node_agree_with_offline_ones(frames: list[Frame], map_path: Path, tmp_path: Path) -> None:
    queries = frames[2::4]
    with BagWriter(tmp_path / "bag", pose_mode="none", base_from_camera=Pose.identity()) as writer:
        for query in queries:
            writer.write_frame(query)
    environment = ros_environment(1 + os.getpid() % 100, tmp_path)
    words = ["--ros-args", "-p", f"map_path:={map_path}", "-p", "autostart:=true", "-p", "device:=cpu"]
    words += ["-p", "output_frame:=camera", "-p", "tf_mode:=map_to_camera", "-p", "mode:=global"]
    words += ["-r", f"image:={IMAGE_TOPIC}", "-r", f"camera_info:={INFO_TOPIC}"]
    out = tmp_path / "answers.json"
    replayed = [str(tmp_path / "bag"), "--record", str(out), "--pace", "answer", "--wait-for", "60"]
    node = Child("the node", "nre_ros.ros.localizer_node", words, tmp_path / "node.txt", environment)
    replay = Child("the replay", "nre_ros.ros.replay", replayed, tmp_path / "replay.txt", environment)
    with node, replay:
        replay.wait(120, needs=[node])
    record = json.loads(out.read_text())
    published = {entry["stamp_ns"]: entry for entry in record["poses"]}

    network = load_network(device="cpu")
    localizer = Localizer(load_map(map_path, network), network, LocalizerConfig())
    accepted = 0
    for query in queries:
        found = localizer.localize(query.image_rgb, query.camera)
        assert found.accepted == (query.stamp_ns in published)
        if found.accepted:
            accepted += 1
            entry = published[query.stamp_ns]
            numbers = (entry["xyz"], entry["quat_xyzw"])
            pose = Pose.from_quat_xyzw(*(torch.tensor(v, dtype=torch.float64) for v in numbers))
            assert found.map_from_cam is not None
            angle_deg, distance = pose_error(pose, found.map_from_cam)
            assert float(angle_deg) < 1e-4
            assert float(distance) < 1e-4
    assert accepted >= 2
