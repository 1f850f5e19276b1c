"""The parameter files are the configuration, word for word, and ROS reads them as such."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nre_ros.cli.config_dump import NODES, parameter_file
from nre_ros.cli.main import main
from nre_ros.config import parameters, with_values

CONFIG = Path(__file__).parents[1] / "config"


def flattened(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def defaults(node: str) -> dict[str, object]:
    """As YAML has them: tuples are lists."""
    return {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in parameters(NODES[node][1])}


@pytest.mark.parametrize("node", NODES)
def test_shipped_file_is_what_the_command_prints(node, capsys):
    assert main(["config", "dump", "--node", node]) == 0
    printed = capsys.readouterr().out
    shipped = (CONFIG / f"{node}.yaml").read_text()
    assert shipped == printed, f"run: .venv/bin/nre_ros config dump --node {node} > config/{node}.yaml"


@pytest.mark.parametrize("node", NODES)
def test_file_holds_every_default_in_its_type_and_nothing_else(node):
    found = flattened(yaml.safe_load(parameter_file(node))["/**"]["ros__parameters"])
    assert found == defaults(node)
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in defaults(node).items()}


@pytest.mark.parametrize("node", NODES)
def test_every_parameter_is_described_on_the_line_above(node):
    lines = [line.strip() for line in parameter_file(node).splitlines()]
    for parameter in parameters(NODES[node][1]):
        leaf = parameter.name.split(".")[-1]
        above = [lines[i - 1] for i, line in enumerate(lines) if line.startswith(f"{leaf}: ")]
        assert f"# {parameter.description}" in "\n".join(above), parameter.name


@pytest.mark.parametrize("namespace", ["", "/robot1"])
@pytest.mark.parametrize("node", NODES)
def test_node_reads_an_edited_file_in_any_namespace(node, namespace, tmp_path):
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    from rclpy.node import Node

    from nre_ros.ros.parameters import NodeParameters

    name, config = NODES[node]
    edited = tmp_path / "edited.yaml"
    edited.write_text(parameter_file(node).replace('map_path: ""', 'map_path: "somewhere"'))
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(edited)], context=context)
    try:
        host = Node(name, namespace=namespace, context=context)
        read = NodeParameters(host, config(), is_configured=lambda: False).config
        host.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert read == with_values(config(), {"map_path": "somewhere"})
