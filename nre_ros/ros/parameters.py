"""ROS parameters declared from the dataclasses of ``nre_ros.config``, checked by them, and read back into them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from nre_ros.config import Parameter, Value, parameters, with_values
from nre_ros.errors import ConfigError

Config = TypeVar("Config")

_ROS_TYPES = {
    bool: RosParameter.Type.BOOL,
    int: RosParameter.Type.INTEGER,
    float: RosParameter.Type.DOUBLE,
    str: RosParameter.Type.STRING,
    tuple: RosParameter.Type.DOUBLE_ARRAY,
}
_LARGEST_INTEGER = 2**63 - 1
FIXED = "changes only while the node is unconfigured"


class NodeParameters(Generic[Config]):
    """The parameters of a node as one configuration, kept in step with what users set.

    A bad value given at the start (command line, YAML) does not end the node: it is held against :meth:`config`
    until somebody sets a good one. ``is_configured`` tells whether the values that are not live are in use.
    """

    def __init__(self, node: Node, defaults: Config, is_configured: Callable[[], bool]) -> None:
        self._known = {p.name: p for p in parameters(defaults)}
        self._config = defaults
        self._is_configured = is_configured
        self._bad: dict[str, str] = {}
        for parameter in self._known.values():
            self._declare(node, parameter)
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def config(self) -> Config:
        """The configuration as it stands; raises ConfigError while a value given at the start is bad."""
        if self._bad:
            raise ConfigError("; ".join(self._bad.values()))
        return self._config

    @property
    def current(self) -> Config:
        """As :attr:`config`, with the default in place of a bad value; for what must work before configuring."""
        return self._config

    def _declare(self, node: Node, parameter: Parameter) -> None:
        given = _given_value(node, parameter.name)
        value = parameter.default
        if given is not None:
            try:
                value = parameter.check(_plain(given))
                self._config = with_values(self._config, {parameter.name: value})
            except ConfigError as error:
                self._bad[parameter.name] = str(error)
        ros_type = _ROS_TYPES[type(value)]
        node.declare_parameter(parameter.name, ros_type, _descriptor(parameter), ignore_override=True)
        node.set_parameters([RosParameter(parameter.name, ros_type, _ros_value(value))])

    def _on_set(self, changes: Iterable[RosParameter]) -> SetParametersResult:
        ours = [change for change in changes if change.name in self._known]
        try:
            for change in ours:
                if self._is_configured() and not self._known[change.name].live:
                    raise ConfigError(f"parameter {change.name} {FIXED}: call its cleanup transition first")
            values = {change.name: _plain(change.value) for change in ours}
            self._config = with_values(self._config, values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in values:
            self._bad.pop(name, None)
        return SetParametersResult(successful=True)


def _given_value(node: Node, name: str) -> Any:
    """What the user gave at the start, of whatever type: a YAML ``tf_rate: 20`` is an integer, and fine."""
    node.declare_parameter(name, None, ParameterDescriptor(dynamic_typing=True))
    value = node.get_parameter(name).value
    node.undeclare_parameter(name)
    return value


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def _ros_value(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(name=parameter.name, description=parameter.description)
    constraints = [] if parameter.live else [FIXED]
    if parameter.choices:
        constraints.append(f"one of {', '.join(parameter.choices)}")
    descriptor.additional_constraints = "; ".join(constraints)
    low, high = parameter.low, parameter.high
    if low is None and high is None:
        return descriptor
    if isinstance(parameter.default, int):
        integers = IntegerRange(from_value=-_LARGEST_INTEGER, to_value=_LARGEST_INTEGER)
        integers.from_value = integers.from_value if low is None else int(low)
        integers.to_value = integers.to_value if high is None else int(high)
        descriptor.integer_range = [integers]
    else:
        floats = FloatingPointRange(from_value=-math.inf, to_value=math.inf)
        floats.from_value = floats.from_value if low is None else float(low)
        floats.to_value = floats.to_value if high is None else float(high)
        descriptor.floating_point_range = [floats]
    return descriptor
