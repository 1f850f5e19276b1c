"""The short form of the soak: bad input over DDS to the real node in a process of its own."""

from __future__ import annotations

import signal
import zlib

import numpy as np
import pytest
import ros_world

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
import torch
from ros_rig import PATIENT, QUERY, Rig
from soak_bad_input import _MAKERS, bad_message
from soak_node import NodeProcess
from soak_robot import Robot, drive
from soak_scenarios import fuzz, map_lost, transform_again

pytest_plugins = ["ros_fixtures"]

PATIENCE_S = 15.0
"""Other work may go on on this machine; what is tested is that it recovers, test/soak.py measures how soon."""


def test_bad_messages_are_the_same_each_time_and_of_every_kind():
    kinds = set()
    for number in range(200):
        one, again = (bad_message(3, number, QUERY, 10**18) for _ in range(2))
        assert (one.what, one.topic) == (again.what, again.topic)
        if isinstance(one.content, bytes):  # padding between their fields is whatever was in memory
            assert len(one.content) == len(again.content)
        else:
            assert told(one.content) == told(again.content)
        kinds.add(one.what.partition(" with ")[0])
    assert len(kinds) >= len(_MAKERS)
    assert [bad_message(4, i, QUERY, 10**18).what for i in range(9)] != [
        bad_message(3, i, QUERY, 10**18).what for i in range(9)
    ]


def told(message) -> str:
    """As repr does; megabytes of pixels take it seconds."""
    fields = {name.lstrip("_"): getattr(message, name) for name in message.__slots__ if name != "_check_fields"}
    return repr({name: zlib.crc32(value) if name == "data" else value for name, value in fields.items()})


def test_node_outlives_bad_input_and_a_lost_map_and_ends_in_order(r, tmp_path):
    path = ros_world.build_map(tmp_path / "map")
    robot = Robot(r, drive(40))
    parameters = {"map_path": path, "autostart": True, "consistent_fixes": 1, **PATIENT, **ros_world.QUICK}
    with NodeProcess(tmp_path / "node.txt", parameters) as node:
        robot.meet(node)
        assert np.isfinite(robot.recover(PATIENCE_S)), node.last_words()
        for row in fuzz(robot, node, seed=1, numbers=range(60), limit_s=PATIENCE_S):
            assert row.ok or "memory" in row.what, (row, node.last_words())
        for row in map_lost(robot, node, path):
            assert row.ok or "within" in row.expected, (row, node.last_words())
        assert transform_again(robot, PATIENCE_S).ok
        code, _ = node.end(signal.SIGTERM, PATIENCE_S)
        assert code == 0, node.last_words()
        assert not node.leftovers()
    assert not robot.wrong
    assert not robot.faults


def test_out_of_memory_on_the_device_is_told_and_the_next_image_works(r, map_path, monkeypatch):
    rig = Rig(r, map_path, tf_mode="none").start()
    localizer = rig.node._query._tracker.localizer

    def see(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(localizer, "see", see)
        rig.send()
        assert r.told("out of memory").level == b"\x02"
        assert not rig.poses
    rig.send()
    rig.wait_for_pose()
