"""The map builder node when things go wrong: killed, told to end, disk full, no poses, clocks that jump."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import ros_world
import torch
from ros_harness import Ros

from nre_ros.errors import MapError
from nre_ros.features import load_network
from nre_ros.geometry import Pose
from nre_ros.mapping import load_map
from nre_ros.mapping.map_file import FILE_NAME

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
from builder_rig import EXTRINSICS, FAILURE, LATCHED, SUCCESS, TRIGGER, PoseSender, Rig, image_message, values
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from nre_ros.recordings.camera_info import info_fields
from nre_ros.ros.map_builder_node import MapBuilderNode

pytest_plugins = ["ros_fixtures"]

FRAMES = [ros_world.frame(index, (10 + index) * 10**9) for index in range(5)]
ALL = {"keyframe_motion": 0.0}
"""Every frame becomes a keyframe."""


def collect(rig: Rig, frames=FRAMES, *, depth: bool = False) -> None:
    poses = PoseSender(rig.ros, "tf")
    for frame in frames:
        poses.send(frame.map_from_cam, frame.stamp_ns)
        rig.send(frame, depth=depth)


def journaled(path: Path) -> int:
    return len(list((path / "journal").glob("*.safetensors")))


def test_keyframes_of_an_unfinished_session_are_resumed_or_set_aside(r: Ros, tmp_path: Path) -> None:
    given = {"map_path": str(tmp_path), **ALL}
    rig = Rig(r, **given)
    collect(rig, FRAMES[:2])
    rig.end()
    assert journaled(tmp_path) == 2

    r.do(rig.node.trigger_configure)
    r.do(rig.node.trigger_activate)
    r.wait(lambda: rig.last()["keyframes resumed"] == "2", "word of the resumed keyframes")
    rig.meet()
    collect(rig, FRAMES[2:4])
    assert rig.call("save_map").success
    assert load_map(tmp_path).keyframe_stamps_ns.tolist() == [frame.stamp_ns for frame in FRAMES[:4]]
    collect(rig, FRAMES[4:])
    rig.end()
    assert journaled(tmp_path) == 5, "one keyframe is in no map yet"

    r.do(lambda: rig.node.set_parameters([Parameter("resume", value=False)]))
    assert r.do(rig.node.trigger_configure) == SUCCESS
    assert len(rig.node._collection.journal) == 0
    assert len(list((tmp_path / "journal-1").glob("*.safetensors"))) == 5


@pytest.mark.parametrize(("name", "value"), [("global_frame_id", "odom"), ("camera_extrinsics", [0.0] * 6 + [1.0])])
def test_keyframes_made_otherwise_are_set_aside_not_mixed(r: Ros, tmp_path: Path, name: str, value) -> None:
    rig = Rig(r, map_path=str(tmp_path), **ALL)
    collect(rig, FRAMES[:2])
    rig.end()
    r.do(lambda: rig.node.set_parameters([Parameter(name, value=value)]))
    assert r.do(rig.node.trigger_configure) == SUCCESS
    assert len(rig.node._collection.journal) == 0
    assert len(list((tmp_path / "journal-1").glob("*.safetensors"))) == 2


def test_once_all_is_saved_nothing_is_left_to_resume(r: Ros, tmp_path: Path) -> None:
    rig = Rig(r, map_path=str(tmp_path), **ALL)
    collect(rig)
    assert rig.call("save_map").success
    assert journaled(tmp_path) == 5, "mapping may go on"
    rig.end()
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_folder_that_cannot_be_written_fails_by_name_and_can_be_retried(r: Ros, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    node = r.add(MapBuilderNode(parameter_overrides=[Parameter("map_path", value=str(tmp_path / "file" / "map"))]))
    assert r.do(node.trigger_configure) == FAILURE
    assert str(tmp_path / "file") in r.told("configure failed").message
    r.do(lambda: node.set_parameters([Parameter("map_path", value=str(tmp_path / "map"))]))
    assert r.do(node.trigger_configure) == SUCCESS


def test_a_save_that_cannot_be_written_leaves_everything_as_it_was(r: Ros, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rig = Rig(r, map_path=str(tmp_path / "map"), **ALL)
    collect(rig)
    r.do(lambda: rig.node.set_parameters([Parameter("map_path", value=str(tmp_path / "file" / "map"))]))
    answer = rig.call("save_map")
    assert not answer.success and "cannot be written" in answer.message
    r.do(lambda: rig.node.set_parameters([Parameter("map_path", value=str(tmp_path / "map"))]))
    answer = rig.call("save_map")
    assert answer.success, answer.message


def test_frames_that_come_while_the_map_is_built_are_counted_and_told(r: Ros, tmp_path: Path) -> None:
    rig = Rig(r, map_path=str(tmp_path), **ALL)
    collect(rig)
    client = r.node.create_client(Trigger, "/nre_map_builder/save_map")
    r.wait(client.service_is_ready, "service")
    future = client.call_async(TRIGGER)
    r.wait(lambda: rig.node._saving, "beginning of the building")
    while not future.done() and not rig.node._health.missed:
        rig.image.publish(image_message(FRAMES[4]))
        time.sleep(0.02)
    answer = r.wait(lambda: future.done() and future.result(), "answer")
    assert answer.success, answer.message
    missed = rig.node._health.missed
    assert missed == 0 or f"{missed} frames that came meanwhile were not used" in answer.message


def test_keyframes_and_points_grow_as_they_come(r: Ros, tmp_path: Path) -> None:
    rig = Rig(r, map_path=str(tmp_path), **ALL)
    clouds = r.collect(PointCloud2, "/nre_map_builder/map_points", LATCHED)
    markers = r.collect(MarkerArray, "/nre_map_builder/keyframes", LATCHED)

    def shown(count: int) -> bool:
        return bool(markers) and len(markers[-1].markers[0].points) == 16 * count

    collect(rig, FRAMES[:2], depth=True)
    r.wait(lambda: shown(2), "two keyframes on display")
    width = r.wait(lambda: clouds and clouds[-1].width, "points on display")
    collect(rig, FRAMES[2:4], depth=False)
    r.wait(lambda: shown(4), "four keyframes on display")
    assert clouds[-1].width >= width > 100
    assert clouds[-1].header.frame_id == "map"


def test_memory_is_bounded_where_nothing_can_be_written(r: Ros) -> None:
    rig = Rig(r, memory_keyframes=2, **ALL)
    collect(rig, FRAMES[:2])
    assert "in memory only: map_path was empty" in r.told("collecting: 2 keyframes").message
    collect(rig, FRAMES[2:3])
    assert "as many as memory_keyframes allows" in r.told("paused").message
    last = rig.last()
    assert (last["keyframes"], last["paused frames"]) == ("2", "1")


def test_no_pose_is_made_up_while_tf_was_away(r: Ros, tmp_path: Path) -> None:
    """Between poses too far apart, before the first and after the last: counted, named, not used."""
    rig = Rig(r, map_path=str(tmp_path), max_pose_gap=1.0, **ALL)
    poses = PoseSender(r, "tf")
    for frame in (FRAMES[0], FRAMES[4]):
        poses.send(frame.map_from_cam, frame.stamp_ns)
    rig.send(replace(FRAMES[0], stamp_ns=9 * 10**9 + 5 * 10**8), depth=False)
    rig.send(FRAMES[0], depth=False)
    rig.send(FRAMES[2], depth=False)
    assert "no sample within the" in rig.last()["last trouble"]
    rig.send(replace(FRAMES[4], stamp_ns=15 * 10**9), depth=False)
    assert rig.last()["frames without pose"] == "3"
    rig.send(FRAMES[4], depth=False)
    assert rig.last()["keyframes"] == "2"


def test_when_the_clock_jumps_back_no_pose_is_taken_from_before(r: Ros, tmp_path: Path) -> None:
    """A bag played in a loop, the second time elsewhere: each keyframe has the pose of its own pass."""
    rig = Rig(r, map_path=str(tmp_path), **ALL)
    collect(rig, FRAMES[:4])
    shift = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([100.0, 0.0, 0.0], dtype=torch.float64))
    rig.send_anew(FRAMES[0])
    assert rig.last()["frames without pose"] == "1", "the first pass has a pose of that stamp"
    assert rig.last()["clock jumps"] == "1"
    poses = PoseSender(r, "tf")
    for frame in FRAMES[1:3]:
        poses.send(shift @ frame.map_from_cam, frame.stamp_ns)
        rig.send_anew(frame)
    centres_m = [pose.translation[0].item() for pose in rig.node._collection._builder.map_from_keyframe]
    assert len(centres_m) == 6
    assert max(centres_m[:4]) < 50 < min(centres_m[4:])


def test_poses_of_the_new_time_that_come_before_its_first_image_are_used(r: Ros, tmp_path: Path) -> None:
    rig = Rig(r, map_path=str(tmp_path), **ALL)
    collect(rig, FRAMES[:4])
    shift = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([100.0, 0.0, 0.0], dtype=torch.float64))
    poses = PoseSender(r, "tf")
    poses.send(shift @ FRAMES[0].map_from_cam, FRAMES[0].stamp_ns)
    r.wait(lambda: rig.node._poses._transforms.times_cleared, "jump of the poses")
    rig.send_anew(FRAMES[0])
    assert rig.last()["clock jumps"] == "1"
    assert rig.node._collection._builder.map_from_keyframe[-1].translation[0] > 50


class Child:
    """The node in a process of its own."""

    def __init__(self, r: Ros, map_path: Path, log: Path) -> None:
        words = ["autostart:=true", f"map_path:={map_path}", "keyframe_motion:=0.0", "tf_timeout:=0.2"]
        words += ["max_pose_gap:=10.0", f"camera_extrinsics:={EXTRINSICS}"]
        command = [sys.executable, "-m", "nre_ros.ros.map_builder_node", "--ros-args"]
        command += [part for word in words for part in ("-p", word)]
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream)
        self.ros = r
        r.diagnostics.clear()

    def meet(self, r: Ros) -> None:
        self.image, self.poses = r.publisher(Image, "image"), PoseSender(r, "tf")
        self.info = r.publisher(CameraInfo, "camera_info")

    def value(self, key: str) -> str:
        told = [values(status) for status in self.ros.diagnostics]
        return next((v[key] for v in reversed(told) if key in v), "")

    def send(self, frame) -> None:
        """Until it is used: best-effort messages to a process that has just been found may be lost."""

        def sent() -> bool:
            self.info.publish(CameraInfo(**info_fields(ros_world.CAMERA)))
            self.poses.send(frame.map_from_cam, frame.stamp_ns)
            self.image.publish(image_message(frame))
            time.sleep(0.2)
            return f"{frame.stamp_ns // 10**9}." in self.value("last image stamp processed")

        self.ros.wait(sent, "use of the frame", 20)


@contextmanager
def child(r: Ros, map_path: Path) -> Iterator[Child]:
    made = Child(r, map_path, map_path.with_suffix(".log"))
    try:
        made.meet(r)
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_killed_filled_and_told_to_end(r: Ros, tmp_path: Path) -> None:
    """One life of the node after another, each in a real process."""
    path = tmp_path / "map"
    with child(r, path) as killed:
        for frame in FRAMES[:3]:
            killed.send(frame)
        killed.process.send_signal(signal.SIGKILL)
    assert journaled(path) == 3

    with child(r, path) as filled:
        r.wait(lambda: filled.value("keyframes resumed") == "3", "resumed keyframes")
        assert "found 3 keyframes of an interrupted session" in filled.log.read_text()
        limits = resource.prlimit(filled.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(filled.process.pid, resource.RLIMIT_FSIZE, (100_000, limits[1]))
        filled.send(FRAMES[3])
        told = r.told("1 keyframes wait in memory")
        assert told.level == b"\x02" and f"{path}/journal" in told.message
        answer = r.call(Trigger, "/nre_map_builder/save_map", TRIGGER)
        assert not answer.success and "cannot be written" in answer.message
        with pytest.raises(MapError, match="there is no map"):
            load_map(path)
        resource.prlimit(filled.process.pid, resource.RLIMIT_FSIZE, limits)
        filled.send(FRAMES[4])
        r.wait(lambda: filled.value("keyframes in memory only").startswith("0 "), "keyframes on disk")
        assert journaled(path) == 5

        client = r.node.create_client(Trigger, "/nre_map_builder/save_map")
        r.wait(client.service_is_ready, "service")
        future = client.call_async(TRIGGER)
        r.wait(
            lambda: future.done() or any("builds the map" in s.message for s in r.diagnostics), "beginning of the build"
        )
        filled.process.send_signal(signal.SIGTERM)
        assert filled.process.wait(20) == 0, filled.log.read_text()
    assert (path / FILE_NAME).exists() != (journaled(path) == 5), "either the map or what makes it"
    assert not [name for name in os.listdir(path) if name.endswith(".part")]
    if (path / FILE_NAME).exists():
        assert load_map(path, load_network()).keyframe_count == 5
