"""The running map builder node: real frames in over real DDS, a real map out."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import ros_world
import torch

from nre_ros.features import load_network
from nre_ros.geometry import Pose
from nre_ros.mapping import load_map
from nre_ros.mapping.map_file import FILE_NAME
from nre_ros.recordings.frame import Frame

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
from builder_rig import BASE_FROM_CAM, LATCHED, SUCCESS, TRIGGER, PoseSender, Rig
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from nre_ros.ros import conversions

pytest_plugins = ["ros_fixtures"]

FRAMES = [ros_world.frame(index, (10 + index) * 10**9) for index in range(5)]


@pytest.mark.parametrize("source", ["tf", "odometry", "pose", "pose_with_covariance"])
def test_a_map_is_built_from_posed_images_and_shown(r, tmp_path, source):
    rig = Rig(r, pose_source=source, map_path=str(tmp_path / "map"))
    poses = PoseSender(r, source)
    for frame in FRAMES:
        poses.send(frame.map_from_cam, frame.stamp_ns)
        rig.send(frame)
    answer = rig.call("save_map")
    assert answer.success, answer.message
    assert str(tmp_path / "map") in answer.message

    map_ = load_map(tmp_path / "map", load_network())
    assert map_.keyframe_count == int(rig.last()["keyframes"]) >= 2
    for stamp_ns, map_from_keyframe in zip(map_.keyframe_stamps_ns, map_.map_from_keyframe.matrix(), strict=True):
        (truth,) = (f.map_from_cam for f in FRAMES if f.stamp_ns == stamp_ns)
        torch.testing.assert_close(map_from_keyframe, truth.matrix(), rtol=0, atol=1e-6)
    clouds = r.collect(PointCloud2, "/nre_map_builder/map_points", LATCHED)
    markers = r.collect(MarkerArray, "/nre_map_builder/keyframes", LATCHED)
    r.wait(lambda: clouds and markers, "latched map")
    np.testing.assert_array_equal(np.frombuffer(clouds[0].data, np.float32).reshape(-1, 3), map_.xyz_map)
    assert len(markers[0].markers[0].points) == 16 * map_.keyframe_count


def test_depth_gives_landmarks_their_true_places(r, tmp_path):
    """Every landmark lies on one of the two walls, x = 0 or y = 0."""
    rig = Rig(r, map_path=str(tmp_path))
    poses = PoseSender(r, "tf")
    for frame in FRAMES:
        poses.send(frame.map_from_cam, frame.stamp_ns)
        rig.send(frame)
    assert rig.call("save_map").success
    off_the_walls_m = np.abs(load_map(tmp_path).xyz_map[:, :2]).min(1)
    assert np.median(off_the_walls_m) < 0.005


def test_poses_are_interpolated_between_stamps(r):
    rig = Rig(r, pose_source="pose")
    poses = PoseSender(r, "pose")
    first, second = FRAMES[0].map_from_cam, FRAMES[1].map_from_cam
    poses.send(first, 10 * 10**9)
    poses.send(second, 12 * 10**9)
    rig.send(ros_world.frame(0, 11 * 10**9))
    (got,) = rig.node._collection._builder.map_from_keyframe
    map_from_base = got @ BASE_FROM_CAM.inverse()
    ends = [(p @ BASE_FROM_CAM.inverse()).translation for p in (first, second)]
    torch.testing.assert_close(map_from_base.translation, (ends[0] + ends[1]) / 2, rtol=0, atol=1e-9)


def test_frames_without_pose_are_counted_named_and_never_used(r, tmp_path):
    rig = Rig(r, map_path=str(tmp_path / "map"))
    rig.send(FRAMES[0], depth=False)
    told = r.told("no pose for the last image from /tf (map <- base_link)")
    assert told.level == b"\x02"
    assert rig.last()["frames without pose"] == "1"
    assert rig.last()["keyframes"] == "0"
    poses = PoseSender(r, "tf")
    poses.send(FRAMES[1].map_from_cam, FRAMES[1].stamp_ns)
    rig.send(FRAMES[1])
    assert rig.last()["keyframes"] == "1"
    assert r.told("collecting: 1 keyframes from 2 frames").level == b"\x00"


def test_saving_too_little_fails_with_the_reason_and_leaves_no_file(r, tmp_path):
    rig = Rig(r)
    answer = rig.call("save_map")
    assert not answer.success
    assert "map_path is empty" in answer.message
    r.do(lambda: rig.node.set_parameters([Parameter("map_path", value=str(tmp_path / "map"))]))
    answer = rig.call("save_map")
    assert not answer.success
    assert "at least 2 keyframes" in answer.message
    assert not (tmp_path / "map" / FILE_NAME).exists()
    poses = PoseSender(r, "tf")
    for frame in FRAMES[:3]:
        poses.send(frame.map_from_cam, frame.stamp_ns)
        rig.send(frame)
    assert rig.call("save_map").success, "a failure does not stand in the way of the next"


def test_a_nan_pose_and_a_wrong_depth_are_refused_by_name(r):
    rig = Rig(r, pose_source="pose")
    poses = PoseSender(r, "pose")
    nan = conversions.pose_stamped(Pose.identity(), "map", FRAMES[0].stamp_ns)
    nan.pose.position.x = math.nan
    poses.publisher.publish(nan)
    rig.send(FRAMES[0], depth=False)
    assert rig.last()["frames without pose"] == "1"
    poses.send(FRAMES[1].map_from_cam, FRAMES[1].stamp_ns)
    small = Frame(FRAMES[1].stamp_ns, FRAMES[1].image_rgb, ros_world.CAMERA, depth_m=np.ones((240, 320), np.float32))
    message = Image(header=conversions.header("cam", small.stamp_ns), height=120, width=160, encoding="32FC1", step=640)
    message.data = np.ones((120, 160), np.float32).tobytes()
    rig.depth.publish(message)
    r.wait(lambda: rig.node._depth._nearest(small.stamp_ns), "depth")
    rig.send(small, depth=False)
    assert "160x120" in rig.last()["last trouble"]
    assert rig.last()["refused frames"] == "1"
    poses.send(FRAMES[2].map_from_cam, FRAMES[2].stamp_ns)
    rig.send(FRAMES[2])
    assert rig.last()["keyframes"] == "1"


def test_stop_pauses_and_start_resumes(r):
    rig = Rig(r)
    poses = PoseSender(r, "tf")
    for frame in FRAMES:
        poses.send(frame.map_from_cam, frame.stamp_ns)
    assert rig.call("stop").success
    rig.image.publish(Image())
    time.sleep(0.2)
    assert rig.call("start").success
    rig.send(FRAMES[0])
    assert rig.last()["frames"] == "1"
    assert r.do(rig.node.trigger_deactivate) == SUCCESS
    answer = rig.call("start")
    assert not answer.success
    assert "inactive" in answer.message


def test_cleanup_during_a_save_answers_the_caller_and_can_be_followed_by_a_new_start(r, tmp_path):
    rig = Rig(r, map_path=str(tmp_path / "map"))
    poses = PoseSender(r, "tf")
    for frame in FRAMES:
        poses.send(frame.map_from_cam, frame.stamp_ns)
        rig.send(frame)
    client = r.node.create_client(Trigger, "/nre_map_builder/save_map")
    r.wait(client.service_is_ready, "service")
    future = client.call_async(TRIGGER)
    r.wait(lambda: rig.node._saving or future.done(), "beginning of the building")
    assert r.do(rig.node.trigger_deactivate) == SUCCESS
    assert r.do(rig.node.trigger_cleanup) == SUCCESS
    answer = r.wait(lambda: future.done() and future.result(), "answer")
    assert answer.success == (tmp_path / "map" / FILE_NAME).exists()
    assert rig.node._collection is None
    assert r.do(rig.node.trigger_configure) == SUCCESS
    assert r.do(rig.node.trigger_activate) == SUCCESS
