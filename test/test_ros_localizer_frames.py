"""Frames and clocks that lie: the node says so, and goes on when they are right again."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from ros_rig import BASE_FROM_CAM, LATCHED, QUERY, Rig, image_message
from tf2_msgs.msg import TFMessage

from nre_ros.geometry import Pose
from nre_ros.ros.conversions import transform_stamped

pytest_plugins = ["ros_fixtures"]


def send_odometry(rig: Rig, publisher, stamp_ns: int) -> None:
    publisher.publish(TFMessage(transforms=[transform_stamped("odom", "base_link", Pose.identity(), stamp_ns)]))


def test_odometry_that_was_stamped_an_hour_ahead_is_forgotten(r, map_path):
    """Else the buffer takes all that follows for too old, and map -> odom stops for that hour."""
    rig = Rig(r, map_path).start()
    tf = r.publisher(TFMessage, "/tf", subscribers=2)
    send_odometry(rig, tf, QUERY.stamp_ns + 3600 * 10**9)
    r.wait(lambda: rig.links("odom", "base_link"), "the odometry sent")

    def try_again() -> bool:
        count = len(rig.poses)
        for step in (0, 10**9):  # the image lies between two samples
            send_odometry(rig, tf, QUERY.stamp_ns - 10**8 + step)
        rig.send()
        rig.wait_for_pose(count + 1)
        return bool(rig.links("map", "odom"))

    r.wait(try_again, "map -> odom")


@pytest.mark.parametrize("frame_id", ["map", "/odom"])
def test_an_image_whose_frame_is_no_cameras_gives_no_pose(r, map_path, frame_id):
    rig = Rig(r, map_path, tf_mode="none", camera_extrinsics=[]).start()
    tf = r.publisher(TFMessage, "/tf_static", LATCHED, subscribers=1)
    links = [
        transform_stamped("map", "odom", Pose.identity(), 0),
        transform_stamped("odom", "base_link", Pose.identity(), 0),
        transform_stamped("base_link", "cam", BASE_FROM_CAM, 0),
    ]
    tf.publish(TFMessage(transforms=links))
    rig.send()
    rig.wait_for_pose()
    rig.image.publish(image_message(replace(QUERY, stamp_ns=QUERY.stamp_ns + 1), frame_id))
    assert "expected the camera's optical frame" in r.told("header.frame_id").message
    assert len(rig.poses) == 1
