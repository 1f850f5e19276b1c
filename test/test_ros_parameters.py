"""ROS parameters are the configuration, no more, no less."""

from __future__ import annotations

import pytest
from ros_harness import ros

from nre_ros.config import BuilderNodeConfig, LocalizerNodeConfig, parameters
from nre_ros.errors import ConfigError

rclpy_parameter = pytest.importorskip("rclpy.parameter")
from rclpy.node import Node  # noqa: E402

from nre_ros.ros.parameters import NodeParameters  # noqa: E402

RosParameter = rclpy_parameter.Parameter


class Host:
    """A bare node with the parameters, started with the given overrides."""

    def __init__(self, r, config, **overrides) -> None:
        self.configured = False
        given = [RosParameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        self.node = r.add(Node("host", parameter_overrides=given))
        self.parameters = NodeParameters(self.node, config, lambda: self.configured)

    def set(self, name, value):
        return self.node.set_parameters([RosParameter(name, value=value)])[0]


@pytest.mark.parametrize("config", [LocalizerNodeConfig(), BuilderNodeConfig()])
def test_every_parameter_is_declared_with_default_description_and_bounds(config):
    with ros() as r:
        host = Host(r, config)
        ours = {p.name: p for p in parameters(config)}
        declared = {name for name in host.node._parameters if name not in BARE}
        assert declared == set(ours)
        for name, parameter in ours.items():
            value = host.node.get_parameter(name).value
            assert (tuple(value) if isinstance(parameter.default, tuple) else value) == parameter.default
            descriptor = host.node.describe_parameter(name)
            assert descriptor.description == parameter.description
            for range_ in (*descriptor.integer_range, *descriptor.floating_point_range):
                assert parameter.low is None or range_.from_value == parameter.low
                assert parameter.high is None or range_.to_value == parameter.high
            ranges = len(descriptor.integer_range) + len(descriptor.floating_point_range)
            assert ranges == (parameter.low is not None or parameter.high is not None)
        assert host.parameters.config == config


BARE = {"use_sim_time", "start_type_description_service"}
"""What every node has."""


def test_values_given_at_the_start_reach_the_configuration():
    with ros() as r:
        given = {"tf_mode": "map_to_base", "nre__seed": 7, "camera_extrinsics": [0, 0, 0, 0, 0, 0, 1], "tf_rate": 5}
        host = Host(r, LocalizerNodeConfig(), **given)
        config = host.parameters.config
        assert (config.tf_mode, config.localizer.nre.seed, config.tf_rate) == ("map_to_base", 7, 5.0)
        assert config.camera_extrinsics == (0, 0, 0, 0, 0, 0, 1)
        assert host.node.get_parameter("tf_rate").value == 5.0


@pytest.mark.parametrize(
    ("name", "bad", "good", "sentence"),
    [
        ("top_k", 0, 5, "parameter top_k is 0, expected 1 to 200"),
        ("tf_mode", "sideways", "none", "expected one of map_to_odom"),
        ("tf_rate", "fast", 10.0, "parameter tf_rate is 'fast', expected float"),
        ("camera_extrinsics", ["a"], [], "parameter camera_extrinsics"),
    ],
)
def test_a_bad_value_at_the_start_is_held_against_configuring_until_mended(name, bad, good, sentence):
    with ros() as r:
        host = Host(r, LocalizerNodeConfig(), **{name: bad})
        with pytest.raises(ConfigError, match=sentence):
            _ = host.parameters.config
        kind = host.node.get_parameter(name).type_
        assert host.node.set_parameters([RosParameter(name, kind, good)])[0].successful
        config = host.parameters.config
        value = getattr(config.localizer if name == "top_k" else config, name)
        assert value == (tuple(good) if isinstance(good, list) else good)


def test_only_live_parameters_change_while_configured():
    with ros() as r:
        host = Host(r, LocalizerNodeConfig())
        assert host.set("top_k", 3).successful
        host.configured = True
        result = host.set("top_k", 4)
        assert not result.successful
        assert "top_k changes only while the node is unconfigured" in result.reason
        assert host.set("accept.false_accept_rate", 0.01).successful
        assert host.parameters.config.localizer.accept.false_accept_rate == 0.01
        assert host.parameters.config.localizer.top_k == 3


@pytest.mark.parametrize(("name", "value"), [("lost_timeout", -1.0), ("output_frame", "wheel"), ("lost_timeout", "x")])
def test_bad_changes_are_refused_and_change_nothing(name, value):
    with ros() as r:
        host = Host(r, LocalizerNodeConfig())
        assert not host.set(name, value).successful
        assert host.parameters.config == LocalizerNodeConfig()
