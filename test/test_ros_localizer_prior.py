"""What the localizer node does with what it knows of its pose: initialpose, tracking, jumps, another map."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ros_world
import torch

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped
from rclpy.parameter import Parameter
from ros_harness import Ros
from ros_rig import BASE_FROM_CAM, QUERY, Rig, image_message, values_of
from std_srvs.srv import Empty, Trigger
from tf2_msgs.msg import TFMessage

from nre_ros.geometry import Pose, pose_error
from nre_ros.mapping import load_map
from nre_ros.ros import conversions

pytest_plugins = ["ros_fixtures"]
STEP_NS = 10**8
RIVALS = {"nre.hypotheses": 4, "nre.max_points": 1000}
"""Enough for the estimator to see two places."""


@pytest.fixture(scope="module")
def twins_path(map_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(ros_world.twin_map(tmp_path_factory.mktemp("twins"), load_map(map_path)))


def initial_pose(map_from_cam: Pose, *, frame_id: str = "map", variance: float = 0.25) -> PoseWithCovarianceStamped:
    covariance = [0.0] * 36
    covariance[0] = covariance[7] = variance
    covariance[35] = 0.07
    return conversions.pose_with_covariance(map_from_cam @ BASE_FROM_CAM.inverse(), covariance, frame_id, 0)


def shifted(pose: Pose, x: float) -> Pose:
    return Pose(pose.rotation, pose.translation + torch.tensor([x, 0, 0], dtype=torch.float64))


def send_odometry(odometry, odom_from_cam: Pose, stamp_ns: int) -> None:  # type: ignore[no-untyped-def]
    odom_from_base = odom_from_cam @ BASE_FROM_CAM.inverse()
    odometry.publish(
        TFMessage(transforms=[conversions.transform_stamped("odom", "base_link", odom_from_base, stamp_ns)])
    )


def test_an_ambiguous_place_is_told_with_its_hypotheses_and_decided_by_initialpose(r: Ros, twins_path: str) -> None:
    rig = Rig(r, twins_path, mode="auto", tf_mode="none", lost_timeout=60.0, **RIVALS).start()
    hypotheses = r.collect(PoseArray, "/nre_localizer/hypotheses")
    r.wait(lambda: rig.node.count_subscribers("/nre_localizer/hypotheses"), "subscription")
    rig.send()
    assert r.told("ambiguous: another pose explains").level == b"\x01"
    r.wait(lambda: hypotheses, "hypotheses")
    truth = QUERY.map_from_cam
    xs = sorted((conversions.pose_from_message(p) @ BASE_FROM_CAM).translation[0].item() for p in hypotheses[0].poses)
    assert [x - truth.translation[0].item() for x in xs] == pytest.approx([0, ros_world.TWIN_AWAY_M], abs=0.05)
    assert not rig.poses, "nothing is published of an ambiguous answer"

    told = r.publisher(PoseWithCovarianceStamped, "initialpose")
    there = shifted(truth, ros_world.TWIN_AWAY_M)
    told.publish(initial_pose(shifted(there, 0.3)))
    time.sleep(0.2)
    rig.send()
    found = conversions.pose_from_message(rig.wait_for_pose().pose) @ BASE_FROM_CAM
    assert float(pose_error(found, there)[1]) < 0.02
    r.wait(lambda: len(hypotheses) == 2, "the end of the ambiguity")
    assert not hypotheses[1].poses
    rig.send(replace(QUERY, stamp_ns=QUERY.stamp_ns + STEP_NS // 3))  # too soon to be anywhere else
    found = conversions.pose_from_message(rig.wait_for_pose(2).pose) @ BASE_FROM_CAM
    assert float(pose_error(found, there)[1]) < 0.02


BAD_INITIAL_POSES = [
    (initial_pose(QUERY.map_from_cam, frame_id="odom"), "it is in frame 'odom', expected 'map'"),
    (initial_pose(QUERY.map_from_cam, variance=-1.0), "negative variance"),
    (initial_pose(QUERY.map_from_cam, variance=math.nan), "NaN"),
]
for _name in ("x", "w"):
    _message = initial_pose(QUERY.map_from_cam)
    if _name == "x":
        _message.pose.pose.position.x = math.nan
    else:
        _message.pose.pose.orientation.w = 7.0
    BAD_INITIAL_POSES.append((_message, ""))


def test_bad_initial_poses_are_refused_in_a_sentence_and_change_nothing(
    r: Ros, map_path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(r, map_path, tf_mode="none").start()
    told = r.publisher(PoseWithCovarianceStamped, "initialpose")
    text = ""
    for count, (message, sentence) in enumerate(BAD_INITIAL_POSES):
        told.publish(message)
        deadline = time.monotonic() + 5
        while text.count("initialpose is refused") <= count and time.monotonic() < deadline:
            time.sleep(0.02)
            text += capfd.readouterr().err
        assert text.count("initialpose is refused") == count + 1
        assert sentence in text
    assert rig.node._query._given is None
    rig.send()
    rig.wait_for_pose()


def test_with_odometry_the_second_image_is_tracked_and_reinitialize_forgets(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path, mode="auto", tf_timeout=2.0).start()
    odometry = r.publisher(TFMessage, "/tf", subscribers=2)
    searches = []
    for index in range(3):
        if index == 2:
            r.call(Empty, "reinitialize_global_localization", Empty.Request())
        frame = replace(QUERY, stamp_ns=QUERY.stamp_ns + index * STEP_NS)
        send_odometry(odometry, shifted(QUERY.map_from_cam, 7.0), frame.stamp_ns)
        rig.send(frame)
        pose = rig.wait_for_pose(index + 1)
        assert (
            float(pose_error(conversions.pose_from_message(pose.pose) @ BASE_FROM_CAM, QUERY.map_from_cam)[1]) < 0.015
        )
        want = str(index + 1)
        r.wait(lambda want=want: values_of(r.diagnostics[-1]).get("attempts") == want, f"attempt {want}")
        searches.append(values_of(r.diagnostics[-1])["search"])
    assert searches == ["global", "track", "global"]


def test_a_jump_that_odometry_does_not_know_of_waits_for_others_that_agree(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path, consistent_fixes=1, tf_timeout=2.0, lost_timeout=60.0).start()
    odometry = r.publisher(TFMessage, "/tf", subscribers=2)
    far = [ros_world.frame(index, 0) for index in (1.5, 5.0, 5.0)]
    step = float(pose_error(far[0].map_from_cam, far[1].map_from_cam)[1])
    assert step > 0.1
    published = []
    for index, frame in enumerate(far):
        frame = replace(frame, stamp_ns=QUERY.stamp_ns + index * STEP_NS)
        send_odometry(odometry, QUERY.map_from_cam, frame.stamp_ns)  # says that nothing moves
        rig.send(frame)
        want = str(index + 1)
        r.wait(lambda want=want: values_of(r.diagnostics[-1]).get("attempts", want) == want, f"attempt {want}")
        if index == 1:
            assert r.told("held back: ").level == b"\x01"
        else:
            rig.wait_for_pose(len(published) + 1)
        published = list(rig.poses)
    stamps = [conversions.stamp_to_ns(p.header.stamp) - QUERY.stamp_ns for p in rig.poses]
    assert stamps == [0, 2 * STEP_NS]


def test_odometry_that_comes_late_is_waited_for(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path, tf_timeout=5.0).start()
    odometry = r.publisher(TFMessage, "/tf", subscribers=2)
    send_odometry(odometry, QUERY.map_from_cam, QUERY.stamp_ns - STEP_NS)
    rig.send()
    time.sleep(0.5)
    assert not rig.poses
    send_odometry(odometry, QUERY.map_from_cam, QUERY.stamp_ns + STEP_NS)
    rig.wait_for_pose()
    r.wait(lambda: rig.links("map", "odom"), "map -> odom")


def test_a_replay_that_begins_again_is_no_jump_and_its_odometry_is_heard(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path, mode="auto", tf_timeout=2.0).start()
    odometry = r.publisher(TFMessage, "/tf", subscribers=2)
    for index, (seconds, place) in enumerate([(60, 1.5), (0, 5.0)]):
        frame = replace(ros_world.frame(place, 0), stamp_ns=QUERY.stamp_ns + seconds * 10**9)
        send_odometry(odometry, QUERY.map_from_cam, frame.stamp_ns)
        rig.send(frame)
        if index:  # the first image of the new run empties the buffer; the next ones find theirs
            time.sleep(0.3)
            frame = replace(frame, stamp_ns=frame.stamp_ns + STEP_NS)
            send_odometry(odometry, QUERY.map_from_cam, frame.stamp_ns)
            rig.send(frame)
        rig.wait_for_pose(index + 1)
    r.wait(lambda: conversions.stamp_to_ns(rig.poses[-1].header.stamp) == frame.stamp_ns, "pose of the new run")
    r.told("localized, score")


def test_load_map_swaps_at_once_and_keeps_the_old_one_if_the_new_one_is_bad(
    r: Ros, map_path: str, twins_path: str, tmp_path: Path
) -> None:
    ask = Trigger.Request()
    rig = Rig(r, map_path, tf_mode="none", **RIVALS)
    early = r.call(Trigger, "/nre_localizer/load_map", ask)
    assert (early.success, "configure it" in early.message) == (False, True)
    rig.start()

    def load(path: str) -> Trigger.Response:
        r.do(lambda: rig.node.set_parameters([Parameter("map_path", value=path)]))
        return r.call(Trigger, "/nre_localizer/load_map", ask)

    (tmp_path / "map.safetensors").write_bytes(b"not a map")
    for bad in ("", "/nowhere/map", str(tmp_path)):
        answer = load(bad)
        assert not answer.success
        assert answer.message.startswith("the old map stays in use: ")
        assert not bad or bad in answer.message
    rig.send()
    rig.wait_for_pose()
    assert values_of(r.told("localized"))["map"] == map_path

    for _ in range(20):
        rig.image.publish(image_message(QUERY))
    answer = load(twins_path)
    assert answer.success and "6 keyframes" in answer.message, answer.message
    for frame in (QUERY, QUERY):
        rig.send(frame)
    told = r.told("another pose explains")
    assert values_of(told)["map"] == twins_path
