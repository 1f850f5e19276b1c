"""What the running localizer node publishes, with a real map and real images over real DDS."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from rclpy.parameter import Parameter
from ros_rig import BASE_FROM_CAM, DARK, LATCHED, ODOM_FROM_BASE, QUERY, Rig, assert_same, values_of
from sensor_msgs.msg import CompressedImage, PointCloud2
from tf2_msgs.msg import TFMessage

from nre_ros.geometry import Pose
from nre_ros.mapping import load_map
from nre_ros.recordings.compressed import encode_png
from nre_ros.ros import conversions

pytest_plugins = ["ros_fixtures"]


def test_it_publishes_what_the_localizer_says_of_the_base(r, map_path, offline):
    rig = Rig(r, map_path, tf_mode="none").start()
    rig.send()
    pose = rig.wait_for_pose()
    expected = offline.map_from_cam @ BASE_FROM_CAM.inverse()
    assert_same(conversions.pose_from_message(pose.pose), expected)
    assert (pose.header.frame_id, conversions.stamp_to_ns(pose.header.stamp)) == ("map", QUERY.stamp_ns)
    r.wait(lambda: rig.covariances, "pose with covariance")
    (with_covariance,) = rig.covariances
    assert with_covariance.header == pose.header
    assert with_covariance.pose.pose == pose.pose
    covariance = conversions.ros_covariance(offline.covariance, expected, BASE_FROM_CAM)
    np.testing.assert_allclose(with_covariance.pose.covariance, covariance, rtol=1e-3, atol=1e-12)
    assert (np.diag(np.reshape(covariance, (6, 6))) > 0).all()
    assert r.told("localized").level == b"\x00"


def test_output_frame_camera_needs_no_robot(r, map_path, offline):
    rig = Rig(r, map_path, output_frame="camera", tf_mode="none", camera_extrinsics=[]).start()
    rig.send()
    assert_same(conversions.pose_from_message(rig.wait_for_pose().pose), offline.map_from_cam)


def test_a_namespace_holds_all_its_topics(r, map_path):
    rig = Rig(r, map_path, space="/robot1", tf_mode="none").start()
    assert rig.image.topic_name == "/robot1/image"
    assert rig.info.topic_name == "/robot1/camera_info"
    rig.send()
    rig.wait_for_pose()
    assert r.told("localized").hardware_id == "/robot1/nre_localizer"


def test_compressed_images_follow_a_remapped_image_topic_and_twins_count_once(r, map_path):
    rig = Rig(r, map_path, arguments=("-r", "image:=/front/color"), tf_mode="none").start()
    assert rig.image.topic_name == "/front/color"
    twin = r.publisher(CompressedImage, "/front/color/compressed")
    rig.send()
    head = conversions.header("cam", QUERY.stamp_ns)
    twin.publish(CompressedImage(header=head, format="png", data=encode_png(QUERY.image_rgb)))
    rig.wait_for_pose()
    rig.send(replace(QUERY, stamp_ns=QUERY.stamp_ns + 1))
    rig.wait_for_pose(2)
    assert [conversions.stamp_to_ns(p.header.stamp) - QUERY.stamp_ns for p in rig.poses] == [0, 1]


def test_the_map_is_shown_to_whoever_comes_later(r, map_path):
    Rig(r, map_path).start()
    clouds = r.collect(PointCloud2, "/nre_localizer/map_points", LATCHED)
    r.wait(lambda: clouds, "map points")
    xyz = np.frombuffer(clouds[0].data, np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(xyz, load_map(map_path).xyz_map)


def test_map_to_odom_takes_odometry_at_the_image_stamp_and_is_repeated_ahead(r, map_path, offline):
    rig = Rig(r, map_path, lost_timeout=1.0, transform_tolerance=0.25).start()
    odometry = r.publisher(TFMessage, "/tf", subscribers=2)
    assert not rig.links("map", "odom"), "nothing before the first fix"
    elsewhere = Pose(ODOM_FROM_BASE.rotation, ODOM_FROM_BASE.translation + 5)
    for odom_from_base, seconds in ((elsewhere, -1), (ODOM_FROM_BASE, 0), (elsewhere, 1)):
        stamp_ns = QUERY.stamp_ns + seconds * 10**9
        odometry.publish(
            TFMessage(transforms=[conversions.transform_stamped("odom", "base_link", odom_from_base, stamp_ns)])
        )
    rig.send()
    r.wait(lambda: len(rig.links("map", "odom")) > 5, f"map -> odom; {rig.last_words()}")
    expected = offline.map_from_cam @ BASE_FROM_CAM.inverse() @ ODOM_FROM_BASE.inverse()
    now_ns = r.node.get_clock().now().nanoseconds
    for link in rig.links("map", "odom"):
        assert_same(conversions.pose_from_transform(link), expected)
        assert now_ns - 2 * 10**9 < conversions.stamp_to_ns(link.header.stamp) - 0.25e9 < now_ns + 10**9
    time.sleep(1.3)
    count = len(rig.links("map", "odom"))
    time.sleep(0.3)
    assert len(rig.links("map", "odom")) == count, "repeated although lost"


@pytest.mark.parametrize(("mode", "child"), [("map_to_base", "base_link"), ("map_to_camera", "cam")])
def test_without_odometry_the_pose_itself_goes_to_tf_once(r, map_path, offline, mode, child):
    rig = Rig(r, map_path, tf_mode=mode).start()
    rig.send()
    r.wait(lambda: rig.tf, f"transform; {rig.last_words()}")
    (link,) = rig.tf
    expected = offline.map_from_cam @ BASE_FROM_CAM.inverse() if mode == "map_to_base" else offline.map_from_cam
    assert (link.header.frame_id, link.child_frame_id) == ("map", child)
    assert conversions.stamp_to_ns(link.header.stamp) == QUERY.stamp_ns
    assert_same(conversions.pose_from_transform(link), expected)


def test_without_odometry_map_to_odom_is_missed_by_name_but_the_pose_is_not(r, map_path):
    rig = Rig(r, map_path).start()
    rig.send()
    rig.wait_for_pose()
    told = r.told("pose published, but not its transform: no transform odom <- base_link")
    assert told.level == b"\x01"
    assert not rig.tf


def test_the_mount_comes_from_tf_static_and_is_missed_by_name(r, map_path, offline):
    rig = Rig(r, map_path, camera_extrinsics=[], tf_mode="none").start()
    rig.send()
    told = r.told("no transform base_link <- cam")
    assert told.level == b"\x02"
    assert "camera_extrinsics" in told.message
    assert not rig.poses
    static = r.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    static.publish(TFMessage(transforms=[conversions.transform_stamped("base_link", "cam", BASE_FROM_CAM, 0)]))
    r.wait(lambda: rig.send() or time.sleep(0.3) or rig.poses, "pose")
    assert_same(conversions.pose_from_message(rig.poses[0].pose), offline.map_from_cam @ BASE_FROM_CAM.inverse())


def test_nothing_is_published_when_the_map_does_not_explain_the_image(r, map_path):
    rig = Rig(r, map_path, tf_mode="map_to_base", lost_timeout=60.0).start()
    rig.send()
    rig.wait_for_pose()
    before = len(rig.tf)
    rig.send(DARK)
    told = r.told("last fix")
    r.do(lambda: rig.node.set_parameters([Parameter("lost_timeout", value=0.1)]))
    rig.send(DARK)
    r.wait(lambda: values_of(r.told("lost: "))["attempts"] == "3", "diagnostic of the third attempt")
    lost = r.told("lost: ")
    assert (told.level, lost.level) == (b"\x01", b"\x02")
    assert values_of(lost)["last reject reason"]
    assert float(values_of(lost)["accept rate"]) == pytest.approx(1 / 3, abs=0.01)
    assert (len(rig.poses), len(rig.tf)) == (1, before)


def test_the_newest_image_wins_when_they_come_faster_than_answers(r, map_path):
    rig = Rig(r, map_path, tf_mode="none").start()
    for index in range(40):
        rig.send(replace(QUERY, stamp_ns=QUERY.stamp_ns + index))
        time.sleep(0.01)
    last_ns = QUERY.stamp_ns + 39
    r.wait(lambda: [p for p in rig.poses if conversions.stamp_to_ns(p.header.stamp) == last_ns], "the last pose")
    stamps = [conversions.stamp_to_ns(p.header.stamp) for p in rig.poses]
    assert stamps == sorted(set(stamps))
    dropped = rig.node._worker.dropped
    assert dropped > 0
    assert len(stamps) + dropped <= 40
