"""What the localizer node shows: the way, keyframes, the debug image; and topics whose QoS cannot meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_harness import Ros
from ros_rig import DARK, LATCHED, QUERY, Rig, values_of
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from nre_ros.mapping import load_map
from nre_ros.ros import conversions

pytest_plugins = ["ros_fixtures"]
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def test_keyframes_are_latched_and_stand_where_they_stand(r: Ros, map_path: str) -> None:
    Rig(r, map_path).start()
    arrays = r.collect(MarkerArray, "/nre_localizer/keyframes", LATCHED)
    r.wait(lambda: arrays, "keyframes")
    points = {(p.x, p.y, p.z) for marker in arrays[0].markers for p in marker.points}
    for centre in load_map(map_path).map_from_keyframe.translation.tolist():
        assert tuple(centre) in points


def test_the_way_grows_and_begins_anew_with_the_clock(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path, tf_mode="none").start()
    ways = r.collect(Path, "/nre_localizer/path")
    r.wait(lambda: rig.node.count_subscribers("/nre_localizer/path"), "subscription")
    for count, second in enumerate((0, 2, 4, -20)):
        rig.send(replace(QUERY, stamp_ns=QUERY.stamp_ns + second * 10**9))
        rig.wait_for_pose(count + 1)
        r.wait(lambda count=count: len(ways) == count + 1, f"way number {count + 1}")
    assert [len(way.poses) for way in ways] == [1, 2, 3, 1]
    assert ways[2].header.frame_id == "map"
    assert [p.pose for p in ways[2].poses] == [p.pose for p in rig.poses[:3]]


def test_the_debug_image_is_made_for_somebody_alone_and_tells_good_from_bad(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path, tf_mode="none", lost_timeout=60.0).start()
    rig.send()
    rig.wait_for_pose()
    assert not rig.node._display.wants_image
    images = r.collect(Image, "/nre_localizer/debug_image", BEST_EFFORT)
    r.wait(lambda: rig.node._display.wants_image, "subscription")
    for count, frame in enumerate((QUERY, DARK)):
        rig.send(replace(frame, stamp_ns=QUERY.stamp_ns + count))
        r.wait(lambda count=count: len(images) == count + 1, f"debug image {count + 1}")
    good, bad = (conversions.image_rgb_from_message(m).astype(int) for m in images)
    height, width = QUERY.image_rgb.shape[:2]
    assert good.shape[1] == width and good.shape[0] > height
    bar = good.shape[0] - height
    assert (good[0, 0, 1] > good[0, 0, 0]) and (bad[0, 0, 0] > bad[0, 0, 1]), "green bar, red bar"
    drawn = np.abs(good[bar:] - QUERY.image_rgb).sum(-1) > 60
    assert 0.005 < drawn.mean() < 0.7, "points are drawn on the image"
    assert [conversions.stamp_to_ns(m.header.stamp) - QUERY.stamp_ns for m in images] == [0, 1]


def test_who_cannot_be_heard_is_told_by_topic(r: Ros, map_path: str) -> None:
    rig = Rig(r, map_path).start()
    r.collect(PoseStamped, "/nre_localizer/pose", LATCHED)
    told = r.wait(
        lambda: [s for s in r.diagnostics if values_of(s).get("incompatible QoS")], "incompatible QoS in diagnostics"
    )
    assert "/nre_localizer/pose (DURABILITY)" in values_of(told[-1])["incompatible QoS"]
    assert rig.node.state == "active"


def test_threads_are_as_asked(r: Ros, map_path: str) -> None:
    before = torch.get_num_threads()
    try:
        rig = Rig(r, map_path, threads=1)
        r.do(lambda: torch.set_num_threads(2))
        r.do(rig.node.trigger_configure)
        assert r.do(torch.get_num_threads) == 1
        assert r.do(lambda: rig.node.set_parameters([Parameter("threads", value=2)]))[0].successful is False
    finally:
        torch.set_num_threads(before)
