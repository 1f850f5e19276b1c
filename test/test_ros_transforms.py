"""The contract of tf2's buffer, listener and broadcaster, run against our stand-in and, where it is installed, against
tf2_ros itself."""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
import time
from typing import Any

import pytest
import torch
from ros_harness import ros

from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError, TransformReason

transforms = pytest.importorskip("nre_ros.ros.transforms")
from geometry_msgs.msg import TransformStamped  # noqa: E402
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


@pytest.fixture(params=["tf2_ros", "nre_ros.ros.tf_stand_in"])
def tf(request: pytest.FixtureRequest) -> Any:
    """The real thing and the stand-in: one contract for both."""
    if request.param == "tf2_ros":
        pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    return importlib.import_module(request.param)


@pytest.fixture
def buffer(tf):
    filled = tf.Buffer()
    filled.set_transform_static(transform_stamped("base", "cam", BASE_FROM_CAM, 0), "test")
    for second, odom_from_base in zip((10, 12), ODOM_FROM_BASE, strict=True):
        put(filled, "odom", "base", odom_from_base, second)
        put(filled, "map", "odom", MAP_FROM_ODOM, second)
    return filled


def put(buffer, parent: str, child: str, parent_from_child: Pose, stamp_s: float) -> None:
    buffer.set_transform(transform_stamped(parent, child, parent_from_child, round(stamp_s * SECOND)), "test")


def put_bad(buffer, message: TransformStamped) -> None:
    """tf2 logs what it refuses; the stand-in raises, and its listener logs."""
    with contextlib.suppress(TransformError):
        buffer.set_transform(message, "test")


def lookup(buffer, target: str, source: str, stamp_s: float, timeout_s: float = 0.0) -> Pose:
    time_ = Time(nanoseconds=round(stamp_s * SECOND))
    return pose_from_transform(buffer.lookup_transform(target, source, time_, Duration(seconds=timeout_s)))


def between(first: Pose, second: Pose, share: float) -> Pose:
    """On the line and along the arc from one pose to another, by the rotation's logarithm instead of quaternions."""
    turn = Pose(first.rotation.mT @ second.rotation, torch.zeros(3, dtype=torch.float64))
    rotation = first.rotation @ Pose.exp(share * turn.log()).rotation
    return Pose(rotation, (1 - share) * first.translation + share * second.translation)


def test_chains_multiply_up_and_down_the_tree(buffer):
    expected = MAP_FROM_ODOM @ ODOM_FROM_BASE[0] @ BASE_FROM_CAM
    assert_same(lookup(buffer, "map", "cam", 10), expected)
    assert_same(lookup(buffer, "cam", "map", 10), expected.inverse())


def test_branches_meet_below_the_root(buffer):
    base_from_lidar = pose(0.2, 0, 0, 0, 0, 1)
    buffer.set_transform_static(transform_stamped("base", "lidar", base_from_lidar, 0), "test")
    assert_same(lookup(buffer, "lidar", "cam", 3), base_from_lidar.inverse() @ BASE_FROM_CAM)
    assert_same(lookup(buffer, "base", "base", 3), Pose.identity())


def test_between_two_stamps_the_motion_is_interpolated(buffer):
    midway = lookup(buffer, "odom", "base", 11)
    assert_same(Pose(midway.rotation, torch.zeros(3, dtype=torch.float64)), pose(0, 0, 0.3, 0, 0, 0))
    ends = [p.translation for p in ODOM_FROM_BASE]
    torch.testing.assert_close(midway.translation, (ends[0] + ends[1]) / 2, rtol=0, atol=1e-9)


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 0.999])
def test_rotations_take_the_shorter_arc_evenly(tf, share, negated):
    """Slerp, whichever of its two signs a quaternion came with."""
    first, second = pose(0.4, -1.1, 0.7, 1, 2, 3), pose(-0.9, 0.3, 1.6, -2, 0, 5)
    message = transform_stamped("odom", "base", second, 12 * SECOND)
    q = message.transform.rotation
    if negated:
        q.x, q.y, q.z, q.w = -q.x, -q.y, -q.z, -q.w
    buffer = tf.Buffer()
    put(buffer, "odom", "base", first, 10)
    buffer.set_transform(message, "test")
    assert_same(lookup(buffer, "odom", "base", 10 + 2 * share), between(first, second, share))


def test_a_chain_of_different_rates_is_interpolated_link_by_link(tf):
    """A map correction once a second, odometry fifty times, a pan head ten times, a fixed camera."""
    rates = {("map", "odom"): 1, ("odom", "base"): 50, ("base", "head"): 10}
    at = {link: lambda s, k=k: pose(0.3 * s, 0.1 * k, 0, s, k * math.sin(s), 0) for k, link in enumerate(rates)}
    buffer = tf.Buffer()
    buffer.set_transform_static(transform_stamped("head", "cam", BASE_FROM_CAM, 0), "test")
    for link, rate in rates.items():
        for i in range(4 * rate + (rate == 50)):
            put(buffer, *link, at[link](i / rate), 100 + i / rate)
    for stamp_s in (100.0, 100.53, 101.999, 102.777):
        expected = Pose.identity()
        for link, rate in rates.items():
            i = math.floor(round((stamp_s - 100) * rate, 6))
            share = (stamp_s - 100) * rate - i
            expected = expected @ between(at[link](i / rate), at[link]((i + 1) / rate), share)
        assert_same(lookup(buffer, "map", "cam", stamp_s), expected @ BASE_FROM_CAM)
    latest = buffer.lookup_transform("map", "cam", Time(), Duration())
    assert latest.header.stamp.sec == 103, "the latest that all links reach"
    with pytest.raises(tf.ExtrapolationException):
        lookup(buffer, "map", "cam", 103.01)
    assert_same(lookup(buffer, "odom", "base", 104), at["odom", "base"](4.0))


def test_time_zero_asks_for_the_latest(buffer):
    answer = buffer.lookup_transform("odom", "base", Time(), Duration())
    assert_same(pose_from_transform(answer), ODOM_FROM_BASE[1])
    assert (answer.header.frame_id, answer.child_frame_id, answer.header.stamp.sec) == ("odom", "base", 12)


def test_static_transforms_hold_at_all_times(buffer):
    for stamp_s in (1, 11, 1000):
        assert_same(lookup(buffer, "base", "cam", stamp_s), BASE_FROM_CAM)
    assert_same(pose_from_transform(buffer.lookup_transform("base", "cam", Time(), Duration())), BASE_FROM_CAM)


def test_a_static_transform_takes_the_place_of_moving_ones_and_of_an_older_static_one(buffer):
    for fixed in (pose(0, 0, 1, 5, 0, 0), pose(0, 0, 2, 7, 0, 0)):
        buffer.set_transform_static(transform_stamped("odom", "base", fixed, 0), "test")
        for stamp_s in (3, 11, 99):
            assert_same(lookup(buffer, "odom", "base", stamp_s), fixed)


def test_what_cannot_be_had_is_told_by_kind(tf, buffer):
    buffer.set_transform_static(transform_stamped("elsewhere", "island", pose(0, 0, 0, 0, 0, 0), 0), "test")
    with pytest.raises(tf.LookupException, match="nowhere"):
        lookup(buffer, "map", "nowhere", 10)
    with pytest.raises(tf.ConnectivityException, match="island"):
        lookup(buffer, "map", "island", 10)
    with pytest.raises(tf.ExtrapolationException, match="into the future"):
        lookup(buffer, "map", "base", 13)
    with pytest.raises(tf.ExtrapolationException, match="into the past"):
        lookup(buffer, "map", "base", 9)
    for kind in (tf.LookupException, tf.ConnectivityException, tf.ExtrapolationException):
        assert issubclass(kind, tf.TransformException)


def test_one_sample_holds_at_its_stamp_alone(tf):
    buffer = tf.Buffer()
    put(buffer, "odom", "base", ODOM_FROM_BASE[0], 10)
    assert_same(lookup(buffer, "odom", "base", 10), ODOM_FROM_BASE[0])
    for stamp_s in (9.999, 10.001):
        with pytest.raises(tf.ExtrapolationException):
            lookup(buffer, "odom", "base", stamp_s)


def test_samples_may_arrive_in_any_order_and_twice(tf):
    buffer = tf.Buffer()
    for second in (12, 10, 13, 11, 11):
        put(buffer, "odom", "base", pose(0, 0, 0, second, 0, 0), second)
    for stamp_s in (10, 10.5, 11, 12.25, 13):
        assert float(lookup(buffer, "odom", "base", stamp_s).translation[0]) == pytest.approx(stamp_s)


def test_what_is_older_than_the_cache_is_forgotten_and_refused(tf):
    buffer = tf.Buffer(cache_time=Duration(seconds=2))
    for second in range(10, 20):
        put(buffer, "odom", "base", ODOM_FROM_BASE[0], second)
    put(buffer, "odom", "base", ODOM_FROM_BASE[1], 12)
    assert_same(lookup(buffer, "odom", "base", 17.5), ODOM_FROM_BASE[0])
    for stamp_s in (12, 15):
        with pytest.raises(tf.ExtrapolationException):
            lookup(buffer, "odom", "base", stamp_s)


def test_a_cache_remembers_ten_seconds_unless_told_otherwise(tf):
    buffer = tf.Buffer()
    for second in range(10, 31):
        put(buffer, "odom", "base", ODOM_FROM_BASE[0], second)
    assert_same(lookup(buffer, "odom", "base", 20.5), ODOM_FROM_BASE[0])
    with pytest.raises(tf.ExtrapolationException):
        lookup(buffer, "odom", "base", 18.5)


def test_a_leading_slash_in_a_message_means_nothing(tf):
    buffer = tf.Buffer()
    put(buffer, "/odom", "/base", ODOM_FROM_BASE[0], 10)
    assert_same(lookup(buffer, "odom", "base", 10), ODOM_FROM_BASE[0])


def test_a_frame_that_is_given_a_new_parent_hangs_there_from_then_on(tf, buffer):
    dock_from_base = pose(0, 0, 1, 0, 0, 0)
    put(buffer, "dock", "base", dock_from_base, 13)
    assert_same(lookup(buffer, "dock", "cam", 13), dock_from_base @ BASE_FROM_CAM)
    with pytest.raises(tf.TransformException):
        lookup(buffer, "map", "cam", 13)


def test_frames_in_a_loop_never_hang_a_lookup_nor_answer_wrongly(tf, buffer):
    """tf2 takes the edge and then finds no answer; the stand-in refuses the edge and keeps what it had."""
    put_bad(buffer, transform_stamped("base", "map", pose(0, 0, 0, 9, 9, 9), 12 * SECOND))
    put_bad(buffer, transform_stamped("odom", "odom", pose(0, 0, 0, 9, 9, 9), 12 * SECOND))
    started = time.monotonic()
    try:
        found = lookup(buffer, "odom", "cam", 12)
    except tf.TransformException:
        pass
    else:
        assert_same(found, ODOM_FROM_BASE[1] @ BASE_FROM_CAM)
    with pytest.raises(tf.TransformException):
        lookup(buffer, "nowhere", "cam", 12)
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("field", ["x", "y", "z", "w"])
def test_bad_numbers_and_names_change_nothing(buffer, field):
    """Quaternions far from unit length are refused by the stand-in alone: tf2 of 2024 makes them unit."""
    bad = transform_stamped("odom", "base", ODOM_FROM_BASE[0], 12 * SECOND)
    setattr(bad.transform.rotation, field, math.nan)
    put_bad(buffer, bad)
    nameless = transform_stamped("odom", "base", ODOM_FROM_BASE[0], 12 * SECOND)
    nameless.child_frame_id = ""
    put_bad(buffer, nameless)
    assert_same(lookup(buffer, "odom", "base", 12), ODOM_FROM_BASE[1])


def test_a_lookup_waits_for_what_is_on_its_way(buffer):
    def later() -> None:
        time.sleep(0.1)
        put(buffer, "odom", "base", ODOM_FROM_BASE[1], 14)

    thread = threading.Thread(target=later)
    thread.start()
    assert_same(lookup(buffer, "odom", "base", 13, timeout_s=5.0), ODOM_FROM_BASE[1])
    thread.join()


def test_waiting_ends_with_the_timeout(tf, buffer):
    started = time.monotonic()
    with pytest.raises(tf.ExtrapolationException):
        lookup(buffer, "odom", "base", 13, timeout_s=0.2)
    assert 0.15 < time.monotonic() - started < 3.0


def test_clearing_forgets_what_moves_and_keeps_what_is_static(tf, buffer):
    buffer.clear()
    with pytest.raises(tf.TransformException):
        lookup(buffer, "odom", "base", 11)
    assert_same(lookup(buffer, "base", "cam", 11), BASE_FROM_CAM)
    put(buffer, "odom", "base", ODOM_FROM_BASE[0], 2)
    assert_same(lookup(buffer, "odom", "cam", 2), ODOM_FROM_BASE[0] @ BASE_FROM_CAM)


def test_asking_for_a_pose_gives_our_error_with_frames_and_reason(buffer):
    assert_same(transforms.lookup_pose(buffer, "odom", "base", 10 * SECOND, 0.0), ODOM_FROM_BASE[0])
    assert_same(transforms.lookup_pose(buffer, "/odom", "/base", 10 * SECOND, 0.0), ODOM_FROM_BASE[0])
    buffer.set_transform_static(transform_stamped("elsewhere", "island", pose(0, 0, 0, 0, 0, 0), 0), "test")
    for source, stamp_s, reason in (
        ("nowhere", 10, TransformReason.UNKNOWN_FRAME),
        ("island", 10, TransformReason.NOT_CONNECTED),
        ("base", 13, TransformReason.EXTRAPOLATION_FUTURE),
    ):
        with pytest.raises(TransformError, match=f"map <- {source}") as caught:
            transforms.lookup_pose(buffer, "map", source, stamp_s * SECOND, 0.0)
        assert caught.value.reason is reason


def test_a_clock_that_jumps_back_clears_what_moves(tf):
    """A bag that is replayed in a loop: odometry of the first round must not stand in the way of the second's."""
    with ros() as r:
        clock = r.publisher(Clock, "/clock", subscribers=0)
        node = r.add(Node("clocked", parameter_overrides=[Parameter("use_sim_time", value=True)]))
        buffer = tf.Buffer(node=node)
        buffer.set_transform_static(transform_stamped("base", "cam", BASE_FROM_CAM, 0), "test")

        def run_clock_to(second: int) -> None:
            def there() -> bool:
                clock.publish(Clock(clock=Time(seconds=second).to_msg()))
                return node.get_clock().now() == Time(seconds=second, clock_type=ClockType.ROS_TIME)

            r.wait(there, f"clock at {second} s")

        def cleared() -> bool:
            try:
                lookup(buffer, "odom", "base", 100)
            except tf.TransformException:
                return True
            return False

        run_clock_to(100)
        put(buffer, "odom", "base", ODOM_FROM_BASE[1], 100)
        assert_same(lookup(buffer, "odom", "base", 100), ODOM_FROM_BASE[1])
        run_clock_to(10)
        r.wait(cleared, "empty buffer")  # the clock is set just before those who want to know are told
        put(buffer, "odom", "base", ODOM_FROM_BASE[0], 10)
        assert_same(lookup(buffer, "odom", "cam", 10), ODOM_FROM_BASE[0] @ BASE_FROM_CAM)
        with pytest.raises(tf.ExtrapolationException):
            lookup(buffer, "odom", "base", 50)


def test_listener_and_broadcaster_meet_over_dds(tf):
    with ros() as r:
        latched = r.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        latched.publish(TFMessage(transforms=[transform_stamped("base", "cam", BASE_FROM_CAM, 0)]))
        buffer = tf.Buffer()
        listener = tf.TransformListener(buffer, r.node)
        broadcaster = tf.TransformBroadcaster(r.node)
        r.wait(lambda: r.node.count_subscribers("/tf"), "listener")

        def arrived() -> bool:
            broadcaster.sendTransform(transform_stamped("odom", "base", ODOM_FROM_BASE[0], 10 * SECOND))
            try:
                lookup(buffer, "odom", "cam", 10)
            except tf.TransformException:
                return False
            return True

        r.wait(arrived, "transform from odom to cam")
        assert_same(lookup(buffer, "odom", "cam", 10), ODOM_FROM_BASE[0] @ BASE_FROM_CAM)
        r.do(listener.unregister)
        r.wait(lambda: not r.node.count_subscribers("/tf"), "end of the listener")


def test_who_listens_late_hears_the_static_transforms_of_all_nodes(tf):
    """Each robot part latches its own; a localizer that is started last needs them all."""
    with ros() as r:
        base_from_lidar = pose(0.2, 0, 0, 0, 0, 1)
        for child, mount in (("cam", BASE_FROM_CAM), ("lidar", base_from_lidar)):
            part = r.add(Node(f"{child}_mount"))
            latched = part.create_publisher(TFMessage, "/tf_static", LATCHED)
            latched.publish(TFMessage(transforms=[transform_stamped("base", child, mount, 0)]))
        for _ in range(2):
            buffer = tf.Buffer()
            listener = tf.TransformListener(buffer, r.node)

            def heard(buffer=buffer) -> bool:
                try:
                    lookup(buffer, "lidar", "cam", 5)
                except tf.TransformException:
                    return False
                return True

            r.wait(heard, "both mounts")
            assert_same(lookup(buffer, "lidar", "cam", 5), base_from_lidar.inverse() @ BASE_FROM_CAM)
            r.do(listener.unregister)
