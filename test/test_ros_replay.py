"""The localizer as its own process, a bag replayed to it over DDS, and what is recorded of its answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ros_world
import torch

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")

from nre_ros.config import LocalizerConfig, with_values
from nre_ros.features import load_network
from nre_ros.geometry import Pose
from nre_ros.localization import Localizer
from nre_ros.mapping import load_map
from nre_ros.recordings.bag_writer import BASE_FROM_CAMERA, BagWriter, drifting_odometry
from nre_ros.ros import replay

pytest_plugins = ["ros_fixtures"]

START_NS = 1_700_000_000 * 10**9
FRAMES = [replace(ros_world.frame(i + 0.5, START_NS + i * 10**8, noise_seed=i), depth_m=None) for i in range(5)]
REMAPS = ["-r", "image:=/camera/image_raw", "-r", "camera_info:=/camera/camera_info"]


@pytest.fixture(scope="module", autouse=True)
def domain_of_its_own() -> Iterator[None]:
    """Nodes that other tests killed stay in their domain's graph for a while, and seem to listen to the replay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + 50) % 100))
        yield


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    """Five views of the corner with odometry, but without the answer."""
    folder = tmp_path_factory.mktemp("bags") / "queries"
    with BagWriter(folder, pose_mode="odom_tf") as writer:
        for frame in FRAMES:
            writer.write_frame(frame)
    return folder


@dataclass
class Running:
    """A node process and what it logs."""

    process: subprocess.Popen
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()

    def wait_for(self, text: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.log():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log()
            time.sleep(0.05)

    def end_with(self, *signals: int) -> None:
        """The process must end by itself, in order."""
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.02)
        assert self.process.wait(timeout=30) == 0, self.log()
        assert "Traceback" not in self.log()


@contextmanager
def localizer(map_path: str | Path, log_file: Path, *arguments: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "nre_ros.ros.localizer_node", "--ros-args", "-p", "autostart:=true"]
    command += ["-p", f"map_path:={map_path}", "-p", "mode:=global", *REMAPS, *arguments]
    with log_file.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Running(process, log_file)
    finally:
        process.kill()
        process.wait()
        print(log_file.read_text())  # shown by pytest when the test fails


def answers_offline(map_path: str | Path) -> list[Pose]:
    """map_from_base of every frame."""
    network = load_network()
    offline = Localizer(load_map(map_path, network), network, with_values(LocalizerConfig(), ros_world.QUICK))
    answers = [offline.localize(frame.image_rgb, frame.camera) for frame in FRAMES]
    assert all(answer.accepted for answer in answers)
    return [answer.map_from_cam @ BASE_FROM_CAMERA.inverse() for answer in answers]


def entry_pose(entry: dict) -> Pose:
    xyz, quat_xyzw = (torch.tensor(entry[key], dtype=torch.float64) for key in ("xyz", "quat_xyzw"))
    return Pose.from_quat_xyzw(xyz, quat_xyzw)


def assert_same(a: Pose, b: Pose) -> None:
    torch.testing.assert_close(a.matrix(), b.matrix(), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def node(map_path, tmp_path_factory) -> Iterator[Running]:
    quick = [argument for name, value in ros_world.QUICK.items() for argument in ("-p", f"{name}:={value}")]
    log_file = tmp_path_factory.mktemp("log") / "log"
    with localizer(map_path, log_file, "-p", "use_sim_time:=true", "-p", "slow_latency:=60.0", *quick) as running:
        yield running


def test_the_node_answers_every_image_as_the_localizer_does_offline(node, map_path, bag, tmp_path):
    out = tmp_path / "answers.json"
    assert replay.main([str(bag), "--pace", "answer", "--clock", "--record", str(out)]) == 0
    answers = json.loads(out.read_text())
    assert [p["stamp_ns"] for p in answers["poses"]] == [f.stamp_ns for f in FRAMES]
    assert [p["stamp_ns"] for p in answers["poses_with_covariance"]] == [f.stamp_ns for f in FRAMES]
    assert answers["unanswered"] == []
    published_ns = {i["stamp_ns"]: i["publish_ns"] for i in answers["images"]}
    for frame, entry, expected in zip(FRAMES, answers["poses"], answers_offline(map_path), strict=True):
        assert_same(entry_pose(entry), expected)
        assert entry["arrival_ns"] > published_ns[frame.stamp_ns]
    assert answers["diagnostics"]["message"].startswith("localized, score")

    links = answers["transforms"]
    assert {(t["parent"], t["child"]) for t in links} == {("map", "odom")}, "odom -> base_link is the bag's own"
    assert all(START_NS < t["stamp_ns"] < START_NS + 10**9 for t in links), "dated in the time of /clock"
    first = drifting_odometry(0.0)
    odom_from_base = first.inverse() @ FRAMES[0].map_from_cam @ BASE_FROM_CAMERA.inverse()
    assert_same(entry_pose(links[0]) @ odom_from_base, entry_pose(answers["poses"][0]))


def test_at_the_pace_of_the_recording_every_image_is_answered_or_gives_way(node, bag, tmp_path):
    out = tmp_path / "answers.json"
    assert replay.main([str(bag), "--rate", "2", "--clock", "--record", str(out)]) == 0
    answers = json.loads(out.read_text())
    stamps = [p["stamp_ns"] for p in answers["poses"]]
    assert stamps and stamps == sorted(set(stamps))
    assert set(stamps) | set(answers["unanswered"]) == {f.stamp_ns for f in FRAMES}
    assert FRAMES[-1].stamp_ns in stamps, "the newest image wins"


def test_the_node_ends_in_order_though_interrupted_twice(node):
    node.end_with(signal.SIGINT, signal.SIGINT)


def test_a_node_that_cannot_start_stays_and_says_why(tmp_path):
    with localizer(tmp_path / "nowhere", tmp_path / "log") as running:
        running.wait_for("configure failed")
        time.sleep(0.5)
        assert running.process.poll() is None
        running.end_with(signal.SIGINT, signal.SIGTERM, signal.SIGINT)
    assert str(tmp_path / "nowhere") in running.log()


def test_nobody_listening_is_an_error_that_names_the_topics(bag, capsys):
    assert replay.main([str(bag), "--wait-for", "0.2"]) == 1
    error = capsys.readouterr().err
    assert "nobody subscribed to /camera/image_raw" in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere"], "/nowhere"),
        (["BAG", "--topics", "/sonar"], "none of the topics"),
        (["BAG", "--remap", "/camera/image_raw"], "expected FROM:=TO"),
    ],
)
def test_bad_arguments_end_with_one_sentence(bag, capsys, arguments, sentence):
    assert replay.main([str(bag) if a == "BAG" else a for a in arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
