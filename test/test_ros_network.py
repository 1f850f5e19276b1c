"""The localizer node loads the network that its parameters name, and no other than the map's."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from paper_networks import small_inception
from rclpy.parameter import Parameter
from ros_rig import FAILURE, SUCCESS, Rig

pytest_plugins = ["ros_fixtures"]


def test_the_parameters_choose_the_network(r, map_path, tmp_path):
    rig = Rig(r, map_path, network="inception")
    assert r.do(rig.node.trigger_configure) == FAILURE
    r.told("lacks weights of its coarse and its fine network")
    files = ":".join(str(file) for file in small_inception(tmp_path))
    r.do(lambda: rig.node.set_parameters([Parameter("weights", value=files)]))
    assert r.do(rig.node.trigger_configure) == FAILURE
    r.told("was made by network compact")
    r.do(lambda: rig.node.set_parameters([Parameter("network", value="compact"), Parameter("weights", value="")]))
    assert r.do(rig.node.trigger_configure) == SUCCESS
