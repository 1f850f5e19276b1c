"""Transforms over time: chains, interpolation, bounds, and the reasons for which there is no answer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nre_ros.errors import NreError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import pose_from_rigid, rigid_from_pose
from nre_ros.geometry.transform_tree import TransformError, TransformReason, TransformTree

SECOND = 10**9


def _pose(*twist: float) -> Pose:
    return Pose.exp(torch.tensor(twist, dtype=torch.float64))


def _random_pose(seed: int) -> Pose:
    return Pose.exp(2 * torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def _assert_same(actual: Pose, expected: Pose, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual.matrix(), expected.matrix(), atol=tolerance, rtol=0)


def _reason(call) -> TransformReason:
    with pytest.raises(TransformError) as error:
        call()
    assert isinstance(error.value, NreError) and str(error.value) and "\n" not in str(error.value)
    return error.value.reason


def _robot() -> TransformTree:
    """map -> odom -> base -> (lidar, head -> camera); odom and base move."""
    tree = TransformTree()
    for i, (parent, child) in enumerate([("base", "lidar"), ("base", "head"), ("head", "camera")]):
        tree.set_transform(parent, child, _random_pose(i), 0, static=True)
    for second in range(3):
        tree.set_transform("map", "odom", _random_pose(10 + second), second * SECOND)
        tree.set_transform("odom", "base", _random_pose(20 + second), second * SECOND)
    return tree


@settings(deadline=None)  # the first call of torch takes seconds
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_poses_survive_the_way_through_plain_floats(twist):
    pose = _pose(*twist)
    _assert_same(pose_from_rigid(rigid_from_pose(pose)), pose)


@pytest.mark.parametrize("second", [0, 1, 2])
def test_chains_multiply(second):
    map_from_camera = _robot().lookup("map", "camera", second * SECOND)
    expected = _random_pose(10 + second) @ _random_pose(20 + second) @ _random_pose(1) @ _random_pose(2)
    _assert_same(map_from_camera, expected)
    assert map_from_camera.rotation.dtype == torch.float64


def test_branches_meet_at_their_common_ancestor():
    _assert_same(_robot().lookup("lidar", "camera", 5), _random_pose(0).inverse() @ _random_pose(1) @ _random_pose(2))


@pytest.mark.parametrize("stamp_ns", [0, 700_000_000, 2 * SECOND])
def test_lookups_are_a_groupoid(stamp_ns):
    tree = _robot()
    for a in ("map", "odom", "lidar"):
        for b in ("camera", "base"):
            _assert_same(tree.lookup(a, b, stamp_ns) @ tree.lookup(b, a, stamp_ns), Pose.identity())
            _assert_same(tree.lookup(a, "map", stamp_ns) @ tree.lookup("map", b, stamp_ns), tree.lookup(a, b, stamp_ns))
    _assert_same(tree.lookup("base", "base", stamp_ns), Pose.identity())


@settings(deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(0, 1), st.booleans())
def test_interpolation_turns_evenly_by_the_shorter_way(angle, share, negated):
    """Between 0 and an angle below 180 degrees, whichever sign the second quaternion has."""
    tree = TransformTree()
    quat = [0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)]
    tree.set_transform("a", "b", Pose.identity(), 0)
    tree.set_transform_xyzw("a", "b", (2.0, -4.0, 8.0), [-v for v in quat] if negated else quat, SECOND)
    stamp_ns = round(share * SECOND)
    share = stamp_ns / SECOND
    expected = Pose(
        _pose(0, 0, share * angle, 0, 0, 0).rotation, share * torch.tensor([2.0, -4.0, 8.0], dtype=torch.float64)
    )
    _assert_same(tree.lookup("a", "b", stamp_ns), expected, 1e-9)


def test_order_of_arrival_does_not_matter():
    tree = TransformTree()
    for second in (2, 0, 3, 1):
        tree.set_transform("a", "b", _pose(0, 0, 0, second, 0, 0), second * SECOND)
    tree.set_transform("a", "b", _pose(0, 0, 0, 10, 0, 0), SECOND)  # a correction replaces
    got = [tree.lookup("a", "b", int(s * SECOND)).translation[0].item() for s in (0, 0.5, 1, 1.5, 2, 2.5)]
    assert got == pytest.approx([0, 5, 10, 6, 2, 2.5])


def test_latest_is_the_latest_that_all_reach():
    tree = _robot()
    tree.set_transform("odom", "base", _random_pose(23), 3 * SECOND)
    assert tree.latest_ns("map", "camera") == 2 * SECOND
    _assert_same(tree.lookup("map", "camera"), tree.lookup("map", "camera", 2 * SECOND))
    assert tree.latest_ns("lidar", "camera") is None
    _assert_same(tree.lookup("lidar", "camera"), tree.lookup("lidar", "camera", 17))


def test_reasons_for_no_answer():
    tree = _robot()
    tree.set_transform("dock", "charger", Pose.identity(), 0, static=True)
    assert _reason(lambda: tree.lookup("map", "camra", 0)) is TransformReason.UNKNOWN_FRAME
    assert _reason(lambda: tree.lookup("map", "charger", 0)) is TransformReason.NOT_CONNECTED
    assert _reason(lambda: tree.lookup("map", "camera", 3 * SECOND)) is TransformReason.EXTRAPOLATION_FUTURE
    assert _reason(lambda: tree.lookup("map", "camera", -1)) is TransformReason.EXTRAPOLATION_PAST
    with pytest.raises(TransformError, match=r"2\.250000000 s.*2\.000000000 s.*0\.250000000 s earlier"):
        tree.lookup("map", "camera", 2_250_000_000)


def test_gaps_are_not_bridged_where_that_is_forbidden():
    tree = TransformTree(cache_ns=None, max_gap_ns=SECOND)
    for stamp_ns in (0, SECOND - 1, 2 * SECOND):
        tree.set_transform("a", "b", Pose.identity(), stamp_ns)
    tree.lookup("a", "b", 5)
    assert _reason(lambda: tree.lookup("a", "b", SECOND)) is TransformReason.GAP


def test_cache_is_bounded():
    tree = TransformTree(cache_ns=2 * SECOND)
    for tenth in range(100):
        assert tree.set_transform("a", "b", Pose.identity(), tenth * SECOND // 10)
    tree.lookup("a", "b", 79 * SECOND // 10)
    assert _reason(lambda: tree.lookup("a", "b", 78 * SECOND // 10)) is TransformReason.EXTRAPOLATION_PAST
    assert not tree.set_transform("a", "b", Pose.identity(), 0)
    endless = TransformTree(cache_ns=None)
    for second in (0, 100_000):
        endless.set_transform("a", "b", Pose.identity(), second * SECOND)
    endless.lookup("a", "b", 1)


@pytest.mark.parametrize(
    ("xyz", "quat"),
    [
        ((math.nan, 0, 0), (0, 0, 0, 1)),
        ((0, math.inf, 0), (0, 0, 0, 1)),
        ((0, 0, 0), (0, 0, 0, math.nan)),
        ((0, 0, 0), (0, 0, 0, 0)),
        ((0, 0, 0), (0, 0, 0, 2)),
    ],
)
def test_bad_numbers_are_refused_and_change_nothing(xyz, quat):
    tree = _robot()
    before = tree.lookup("map", "base", SECOND)
    assert _reason(lambda: tree.set_transform_xyzw("odom", "base", xyz, quat, SECOND)) is TransformReason.INVALID
    _assert_same(tree.lookup("map", "base", SECOND), before)


@pytest.mark.parametrize("factor", [math.nan, 2.0, 0.0, -1.0])
def test_poses_that_are_no_rotation_are_refused(factor):
    pose = Pose(factor * torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    assert _reason(lambda: TransformTree().set_transform("a", "b", pose, 0)) is TransformReason.INVALID


def test_loops_and_empty_names_are_refused():
    tree = _robot()
    for parent, child in (("camera", "map"), ("base", "odom"), ("map", "map"), ("", "x"), ("x", "")):
        refused = lambda p=parent, c=child: tree.set_transform(p, c, Pose.identity(), 0)  # noqa: E731
        assert _reason(refused) is TransformReason.INVALID
    tree.lookup("map", "camera", SECOND)


def test_new_parent_takes_over():
    tree = _robot()
    tree.set_transform("world", "odom", Pose.identity(), SECOND)
    _assert_same(tree.lookup("world", "base", SECOND), _random_pose(21))
    assert tree.root_of("camera") == "world"
    assert "map" not in tree.frames()


def test_clear_keeps_what_is_static():
    tree = _robot()
    tree.clear()
    assert _reason(lambda: tree.lookup("map", "camera")) is TransformReason.UNKNOWN_FRAME
    _assert_same(tree.lookup("base", "camera"), _random_pose(1) @ _random_pose(2))
    tree.set_transform("odom", "base", _random_pose(5), -SECOND)  # the clock went back
    _assert_same(tree.lookup("odom", "camera"), _random_pose(5) @ _random_pose(1) @ _random_pose(2))


def test_leading_slashes_mean_nothing():
    tree = TransformTree()
    tree.set_transform("/map", "base", _random_pose(1), 0)
    _assert_same(tree.lookup("map", "/base", 0), _random_pose(1))
