"""The contract of the transform buffer, run against tf2_ros where it is installed and our stand-in elsewhere."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from ros_harness import ros

from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError, TransformReason

transforms = pytest.importorskip("nre_ros.ros.transforms")
from rclpy.clock import ClockType  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.time import Time  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from nre_ros.ros.conversions import pose_from_transform, transform_stamped  # noqa: E402

SECOND = 10**9
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def pose(*twist: float) -> Pose:
    return Pose.exp(torch.tensor(twist, dtype=torch.float64))


def assert_same(a: Pose, b: Pose) -> None:
    torch.testing.assert_close(a.matrix(), b.matrix(), rtol=0, atol=1e-9)


MAP_FROM_ODOM = pose(0, 0, 0.3, 1, 2, 0)
ODOM_FROM_BASE = (pose(0, 0, 0.1, 0, 0, 0), pose(0, 0, 0.5, 2, 0, 0))
BASE_FROM_CAM = pose(1, -1, 1, 0.2, 0, 0.3)


@pytest.fixture
def buffer():
    filled = transforms.Buffer()
    filled.set_transform_static(transform_stamped("base", "cam", BASE_FROM_CAM, 0), "test")
    for second, odom_from_base in zip((10, 12), ODOM_FROM_BASE, strict=True):
        filled.set_transform(transform_stamped("odom", "base", odom_from_base, second * SECOND), "test")
        filled.set_transform(transform_stamped("map", "odom", MAP_FROM_ODOM, second * SECOND), "test")
    return filled


def lookup(buffer, target: str, source: str, stamp_s: float, timeout_s: float = 0.0) -> Pose:
    time_ = Time(nanoseconds=round(stamp_s * SECOND))
    return pose_from_transform(buffer.lookup_transform(target, source, time_, Duration(seconds=timeout_s)))


def test_chains_multiply_up_and_down_the_tree(buffer):
    expected = MAP_FROM_ODOM @ ODOM_FROM_BASE[0] @ BASE_FROM_CAM
    assert_same(lookup(buffer, "map", "cam", 10), expected)
    assert_same(lookup(buffer, "cam", "map", 10), expected.inverse())


def test_between_two_stamps_the_motion_is_interpolated(buffer):
    midway = lookup(buffer, "odom", "base", 11)
    assert_same(Pose(midway.rotation, torch.zeros(3, dtype=torch.float64)), pose(0, 0, 0.3, 0, 0, 0))
    ends = [p.translation for p in ODOM_FROM_BASE]
    torch.testing.assert_close(midway.translation, (ends[0] + ends[1]) / 2, rtol=0, atol=1e-9)


def test_time_zero_asks_for_the_latest(buffer):
    answer = buffer.lookup_transform("odom", "base", Time(), Duration())
    assert_same(pose_from_transform(answer), ODOM_FROM_BASE[1])
    assert (answer.header.frame_id, answer.child_frame_id, answer.header.stamp.sec) == ("odom", "base", 12)


def test_static_transforms_hold_at_all_times(buffer):
    for stamp_s in (1, 11, 1000):
        assert_same(lookup(buffer, "base", "cam", stamp_s), BASE_FROM_CAM)


def test_what_cannot_be_had_is_told_by_kind(buffer):
    buffer.set_transform_static(transform_stamped("elsewhere", "island", pose(0, 0, 0, 0, 0, 0), 0), "test")
    with pytest.raises(transforms.LookupException):
        lookup(buffer, "map", "nowhere", 10)
    with pytest.raises(transforms.ConnectivityException):
        lookup(buffer, "map", "island", 10)
    for stamp_s in (9, 13):
        with pytest.raises(transforms.ExtrapolationException):
            lookup(buffer, "map", "base", stamp_s)


def test_a_lookup_waits_for_what_is_on_its_way(buffer):
    def later() -> None:
        time.sleep(0.1)
        buffer.set_transform(transform_stamped("odom", "base", ODOM_FROM_BASE[1], 14 * SECOND), "test")

    thread = threading.Thread(target=later)
    thread.start()
    assert_same(lookup(buffer, "odom", "base", 13, timeout_s=5.0), ODOM_FROM_BASE[1])
    thread.join()


def test_waiting_ends_with_the_timeout(buffer):
    started = time.monotonic()
    with pytest.raises(transforms.ExtrapolationException):
        lookup(buffer, "odom", "base", 13, timeout_s=0.2)
    assert 0.15 < time.monotonic() - started < 3.0


def test_asking_for_a_pose_gives_our_error_with_frames_and_reason(buffer):
    assert_same(transforms.lookup_pose(buffer, "odom", "base", 10 * SECOND, 0.0), ODOM_FROM_BASE[0])
    with pytest.raises(TransformError, match="map <- nowhere") as caught:
        transforms.lookup_pose(buffer, "map", "nowhere", 10 * SECOND, 0.0)
    assert caught.value.reason is TransformReason.UNKNOWN_FRAME


def test_a_clock_that_jumps_back_clears_what_moves():
    """A bag that is replayed in a loop: odometry of the first round must not stand in the way of the second's."""
    with ros() as r:
        clock = r.publisher(Clock, "/clock", subscribers=0)
        node = r.add(Node("clocked", parameter_overrides=[Parameter("use_sim_time", value=True)]))
        buffer = transforms.Buffer(node=node)

        def run_clock_to(second: int) -> None:
            def there() -> bool:
                clock.publish(Clock(clock=Time(seconds=second).to_msg()))
                return node.get_clock().now() == Time(seconds=second, clock_type=ClockType.ROS_TIME)

            r.wait(there, f"clock at {second} s")

        run_clock_to(100)
        buffer.set_transform(transform_stamped("odom", "base", ODOM_FROM_BASE[1], 100 * SECOND), "test")
        assert_same(lookup(buffer, "odom", "base", 100), ODOM_FROM_BASE[1])
        run_clock_to(10)
        buffer.set_transform(transform_stamped("odom", "base", ODOM_FROM_BASE[0], 10 * SECOND), "test")
        assert_same(lookup(buffer, "odom", "base", 10), ODOM_FROM_BASE[0])
        with pytest.raises(transforms.ExtrapolationException):
            lookup(buffer, "odom", "base", 50)


def test_listener_and_broadcaster_meet_over_dds():
    with ros() as r:
        latched = r.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        latched.publish(TFMessage(transforms=[transform_stamped("base", "cam", BASE_FROM_CAM, 0)]))
        buffer = transforms.Buffer()
        listener = transforms.TransformListener(buffer, r.node)
        broadcaster = transforms.TransformBroadcaster(r.node)
        r.wait(lambda: r.node.count_subscribers("/tf"), "listener")

        def arrived() -> bool:
            broadcaster.sendTransform(transform_stamped("odom", "base", ODOM_FROM_BASE[0], 10 * SECOND))
            try:
                lookup(buffer, "odom", "cam", 10)
            except transforms.TransformException:
                return False
            return True

        r.wait(arrived, "transform from odom to cam")
        assert_same(lookup(buffer, "odom", "cam", 10), ODOM_FROM_BASE[0] @ BASE_FROM_CAM)
        r.do(listener.unregister)
        r.wait(lambda: not r.node.count_subscribers("/tf"), "end of the listener")
