"""The demo, end to end and in its parts: children that are cleaned up, answers judged, pictures drawn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from nre_ros.cli.children import Child, ended_by_sigterm, ros_environment
from nre_ros.cli.main import main
from nre_ros.errors import NreError, RecordingError
from nre_ros.evaluation.metrics import Answer
from nre_ros.evaluation.pictures import draw_overlay, typical_answer, write_image
from nre_ros.evaluation.replayed import Query, answers_by_pose, answers_by_transform
from nre_ros.geometry import Pose, pose_error

PICTURES = ("overlay.png", "trajectory.png", "map.png")
NAP = "import time; time.sleep(60)"


def module(folder: Path, name: str, text: str) -> dict[str, str]:
    """A module that a child can run, and the environment that finds it."""
    (folder / f"{name}.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(folder)}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    """A killed process takes a moment to be gone, longer on a busy machine."""
    deadline = time.monotonic() + 20
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def test_child_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    environment = module(tmp_path, "failing", "print('first'); raise SystemExit('the map is broken')")
    with Child("the node", "failing", [], tmp_path / "log", environment) as child:
        with pytest.raises(NreError, match=r"the node failed with exit code 1; .*the map is broken"):
            child.wait(20)
        with pytest.raises(NreError, match="the node ended"):
            child.check_alive()


def test_child_that_hangs_is_ended(tmp_path: Path) -> None:
    environment = module(tmp_path, "hanging", NAP)
    with Child("the replay", "hanging", [], tmp_path / "log", environment) as child:
        pid = child._process.pid
        with pytest.raises(NreError, match="did not end within"):
            child.wait(0.3)
        assert is_running(pid)
    assert not is_running(pid)


def test_end_of_a_needed_child_ends_the_wait(tmp_path: Path) -> None:
    environment = module(tmp_path, "dying", "raise SystemExit('no memory')")
    module(tmp_path, "patient", NAP)
    started_s = time.monotonic()
    with (
        Child("the node", "dying", [], tmp_path / "a", environment) as node,
        Child("the replay", "patient", [], tmp_path / "b", environment) as replay,
        pytest.raises(NreError, match=r"the node ended .*no memory"),
    ):
        replay.wait(60, needs=[node])
    assert time.monotonic() - started_s < 30


def test_descendants_go_with_the_child_however_stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nre_ros.cli.children._PATIENCE_S", 0.5)
    told = tmp_path / "pid"
    stubborn = f"""
import pathlib, signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", {NAP!r}])
pathlib.Path({str(told)!r}).write_text(str(grandchild.pid))
time.sleep(60)
"""
    environment = module(tmp_path, "stubborn", stubborn)
    with Child("the node", "stubborn", [], tmp_path / "log", environment) as child:
        grandchild = int(wait_for(told))
    assert not is_running(child._process.pid)
    assert ends(grandchild)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_parent_takes_its_children_along(tmp_path: Path, number: int) -> None:
    told = tmp_path / "pid"
    environment = module(tmp_path, "napping", NAP)
    parent = f"""
import pathlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell inherit that it is ignored
from nre_ros.cli.children import Child, ended_by_sigterm
with ended_by_sigterm(), Child("it", "napping", [], pathlib.Path({str(tmp_path / "log")!r}), {environment!r}) as child:
    pathlib.Path({str(told)!r}).write_text(str(child._process.pid))
    child.wait(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stderr=subprocess.DEVNULL)
    pid = int(wait_for(told))
    process.send_signal(number)
    assert process.wait(30) != 0
    assert not is_running(pid)


def test_sigterm_means_what_it_meant_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_children_talk_to_each_other_alone_and_find_the_profile(tmp_path: Path) -> None:
    environment = ros_environment(42, tmp_path)
    assert environment["ROS_DOMAIN_ID"] == "42"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(environment["FASTRTPS_DEFAULT_PROFILES_FILE"]).name == "fastdds_large_images.xml"
    assert sys.prefix in environment["AMENT_PREFIX_PATH"]


def pose(*twist: float) -> Pose:
    return Pose.exp(torch.tensor(twist, dtype=torch.float64))


BASE_FROM_CAM = pose(0.1, -1.2, 1.1, 0.2, 0.0, 1.0)
TRUTH = [pose(0.1 * i, 0.2, 0.3, i, 2.0, 1.0) for i in range(4)]
MAP_FROM_ODOM = [pose(0, 0, 0.3 + 0.01 * i, 2.0, i, 0) for i in range(4)]
QUERIES = [
    Query(i, true, link.inverse() @ true) for i, (true, link) in enumerate(zip(TRUTH, MAP_FROM_ODOM, strict=True))
]


def entry(given: Pose, stamp_ns: int, arrival_ns: int) -> dict[str, Any]:
    numbers = {"xyz": given.translation.tolist(), "quat_xyzw": given.quat_xyzw().tolist()}
    return {"stamp_ns": stamp_ns, "arrival_ns": arrival_ns, **numbers}


def record(answered: list[int]) -> dict[str, Any]:
    """Images a second apart, answered rightly after 0.3 s; transforms every 50 ms, the old one once more, too late."""
    second = 10**9
    poses, transforms = [], []
    for i in answered:
        arrival = i * second + 3 * 10**8
        poses.append(entry(TRUTH[i] @ BASE_FROM_CAM.inverse(), i, arrival))
        stale = MAP_FROM_ODOM[max(i - 1, 0)]
        transforms.append({**entry(stale, 0, arrival + 10**6), "parent": "map", "child": "odom"})
        for k in range(1, 5):
            for link, child in ((MAP_FROM_ODOM[i], "odom"), (stale, "other")):
                told = entry(link, 0, arrival + k * 5 * 10**7)
                transforms.append({**told, "parent": "map", "child": child})
    images = [{"stamp_ns": i, "publish_ns": i * second} for i in range(4)]
    return {"images": images, "poses": poses, "transforms": transforms, "unanswered": [2] if 2 not in answered else []}


@pytest.mark.parametrize("judge", ["pose", "transform"])
def test_right_answers_have_no_error_and_missing_ones_are_told(judge: str) -> None:
    told = record([0, 1])
    answers = answers_by_pose(told, QUERIES, BASE_FROM_CAM) if judge == "pose" else answers_by_transform(told, QUERIES)
    assert [a.status for a in answers] == ["accepted", "accepted", "missed", "rejected"]
    assert max(max(a.error()) for a in answers[:2]) < 1e-6
    assert [a.latency_ms for a in answers[:2]] == pytest.approx([300, 300])
    assert all(a.map_from_cam is None and a.reason for a in answers[2:])


def test_wrong_answers_have_their_error() -> None:
    told = record([0, 1, 2, 3])
    for kind in ("poses", "transforms"):
        for wrong in told[kind]:
            wrong["xyz"][2] += 0.25
    for answers in (answers_by_pose(told, QUERIES, BASE_FROM_CAM), answers_by_transform(told, QUERIES)):
        assert [a.error()[1] for a in answers] == pytest.approx([0.25] * 4)


def answer(distance: float, accepted: bool = True) -> Answer:
    status = "accepted" if accepted else "rejected"
    return Answer(0, "", status, "", 1.0, pose(0, 0, 0, distance, 0, 0), pose(0, 0, 0, 0, 0, 0), 1.0, {})


def test_typical_answer_is_the_accepted_one_of_median_error() -> None:
    assert typical_answer([answer(0.4), answer(0.1), answer(9.0), answer(0.2, accepted=False)]) == 0
    assert typical_answer([answer(0.1, accepted=False)]) is None


def test_overlay_marks_landmarks_where_they_are() -> None:
    image = np.full((50, 80, 3), 128, np.uint8)
    uv_px = np.array([[0.0, 0.0], [60.25, 30.0], [20.0, 40.0], [np.nan, 1.0], [200.0, 10.0]])
    picture = draw_overlay(image, uv_px, np.array([0.0, 0.0, 1.0, 0.0, 0.0]))
    good, bad = picture[60, 121], picture[80, 40]
    assert good[1] > 200 and good[0] < 60
    assert bad[0] > 200 and bad[1] < 60
    plain = draw_overlay(image, np.empty((0, 2)), np.empty(0))
    marked = np.argwhere((picture[:100] != plain[:100]).any(-1))
    groups = [[0.5, 0.5], [60.5, 121.0], [80.5, 40.5]]
    assert all(min(np.abs(spot - centre).max() for centre in groups) < 6 for spot in marked)


def test_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be written"):
        write_image(tmp_path / "nowhere" / "a.png", np.zeros((4, 4, 3), np.uint8))


def test_demo_from_the_rendered_world_to_the_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The first fifth of the tour, in small images, with the real node in its own process."""
    pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
    folder = tmp_path / "demo"
    words = ["--map-frames", "18", "--query-frames", "8", "--size", "320x240"]
    code = main(["demo", "-o", str(folder), "--domain-id", os.environ["ROS_DOMAIN_ID"], *words])
    told = capfd.readouterr()
    assert code == 0, told.err
    assert str(folder) in told.out.splitlines()[-1]
    figures = json.loads((folder / "report.json").read_text())
    for kind in ("pose", "transform"):
        assert figures[kind]["queries"] == 8
        assert figures[kind]["recall"]["0.05m_5deg"] >= 0.95
        assert figures[kind]["wrong"] == 0
    assert (folder / "report.txt").read_text().strip() in told.out
    for picture in PICTURES:
        assert cv2.imread(str(folder / picture)) is not None, picture
    stamps = [line.split()[0] for line in figures["pose"]["poses"]]
    assert all(a < b for a, b in pairwise(stamps))

    # the same pictures from the evaluation without ROS
    words = ["--map", str(folder / "map"), "--pose-topic", "/ground_truth/pose", "--pictures", str(folder / "offline")]
    assert main(["evaluate", str(folder / "query"), *words]) == 0
    for picture in PICTURES:
        assert cv2.imread(str(folder / "offline" / picture)) is not None, picture


def test_demo_without_a_usable_folder_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["demo", "-o", str(tmp_path / "file" / "x")]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_pose_error_of_the_judges_is_that_of_the_cameras() -> None:
    """A base that is turned moves the camera on its mast: both are counted."""
    turned = record([0, 1, 2, 3])
    for wrong, true in zip(turned["poses"], TRUTH, strict=True):
        base = true @ BASE_FROM_CAM.inverse() @ pose(0, 0, 0.1, 0, 0, 0)
        wrong["quat_xyzw"] = base.quat_xyzw().tolist()
    for given in answers_by_pose(turned, QUERIES, BASE_FROM_CAM):
        assert given.map_from_cam is not None and given.truth is not None
        angle, distance = pose_error(given.map_from_cam, given.truth)
        assert float(angle) == pytest.approx(np.rad2deg(0.1))
        assert float(distance) > 0.005
