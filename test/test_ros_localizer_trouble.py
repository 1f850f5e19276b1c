"""Bad and missing input: the node says what is wrong, stays, and works again when good input comes."""

from __future__ import annotations

import math

import pytest
import ros_world

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from rclpy.parameter import Parameter
from ros_rig import BASE_FROM_CAM, QUERY, SUCCESS, Rig, assert_same, image_message, info_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.recordings.compressed import encode_png
from nre_ros.ros import conversions

pytest_plugins = ["ros_fixtures"]


def broken(**changes) -> Image:
    message = image_message(QUERY)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


BAD_IMAGES = [
    (broken(encoding="hsv8"), "'hsv8' is unknown"),
    (broken(data=b"\x00" * 100), "the message is cut off"),
    (broken(width=0), "0x240 has no pixels"),
    (broken(height=0, width=0, step=0, data=b""), "0x0 has no pixels"),
    (broken(step=10), "has step 10"),
    (broken(height=120), "320x120"),
]


def test_bad_images_are_told_and_the_next_good_one_works(r, map_path):
    rig = Rig(r, map_path, tf_mode="none").start()
    for count, (bad, sentence) in enumerate(BAD_IMAGES):
        rig.image.publish(bad)
        assert r.told(sentence).level == b"\x02"
        assert len(rig.poses) == count
        rig.send()
        rig.wait_for_pose(count + 1)


def test_compressed_images_work_and_damaged_ones_are_told(r, map_path, offline):
    rig = Rig(r, map_path, tf_mode="none").start()
    compressed = r.publisher(CompressedImage, "image/compressed")
    head = conversions.header("cam", QUERY.stamp_ns)
    png = encode_png(QUERY.image_rgb)
    compressed.publish(CompressedImage(header=head, format="png", data=png[: len(png) // 2]))
    r.told("PNG image is cut off")
    compressed.publish(CompressedImage(header=head, format="png", data=png))
    assert_same(conversions.pose_from_message(rig.wait_for_pose().pose), offline.map_from_cam @ BASE_FROM_CAM.inverse())


BAD_INFOS = [
    (info_message(ros_world.CAMERA.resized(640, 480)), ["320x240", "640x480"]),
    (CameraInfo(width=320, height=240, k=[math.nan] * 9), ["NaN"]),
    (CameraInfo(width=320, height=240), ["not calibrated"]),
]


def test_a_bad_calibration_is_told_and_a_good_one_takes_effect_at_once(r, map_path):
    rig = Rig(r, map_path, tf_mode="none").start()

    def calibrate(info: CameraInfo) -> None:
        before = rig.node._camera._calibration
        rig.info.publish(info)
        r.wait(lambda: rig.node._camera._calibration is not before, "camera_info")

    for count, (bad, sentences) in enumerate(BAD_INFOS):
        calibrate(bad)
        rig.send()
        for sentence in sentences:
            assert r.told(sentence).level == b"\x02"
        assert len(rig.poses) == count
        calibrate(info_message())
        rig.send()
        rig.wait_for_pose(count + 1)


def test_missing_inputs_are_named(r, map_path):
    rig = Rig(r, map_path, stale_timeout=0.3, tf_mode="none")
    assert r.do(rig.node.trigger_configure) == SUCCESS
    assert r.do(rig.node.trigger_activate) == SUCCESS
    assert "/image" in r.told("no images").message
    image = r.publisher(Image, "image")
    r.do(lambda: rig.node.set_parameters([Parameter("stale_timeout", value=30.0)]))
    image.publish(image_message(QUERY))
    assert "/camera_info" in r.told("no calibration").message
    assert not rig.poses
    r.publisher(CameraInfo, "camera_info").publish(info_message())
    rig.wait_for_pose()  # of the image that was waiting for its calibration
