"""Launch files: read as source everywhere, and really loaded where launch is installed."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from nre_ros.config import BuilderNodeConfig, LocalizerNodeConfig, parameters

ROOT = Path(__file__).parents[1]
FILES = {"relocalization": LocalizerNodeConfig, "mapping": BuilderNodeConfig}
EXECUTABLES = {"relocalization": "nre_localizer", "mapping": "nre_map_builder"}


def path_of(name: str) -> Path:
    return ROOT / "launch" / f"{name}.launch.py"


def calls(name: str, function: str) -> list[ast.Call]:
    tree = ast.parse(path_of(name).read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == function]
    assert found, f"{name} has no {function}"
    return found


def literal(call: ast.Call, keyword: str) -> str:
    (value,) = (k.value for k in call.keywords if k.arg == keyword)
    return ast.literal_eval(value)


def test_every_launch_file_is_tested():
    assert {path.name for path in (ROOT / "launch").iterdir() if path.is_file()} == {path_of(n).name for n in FILES}


@pytest.mark.parametrize("name", FILES)
def test_compiles(name):
    compile(path_of(name).read_text(), str(path_of(name)), "exec")


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described_and_has_a_default(name):
    for declaration in calls(name, "DeclareLaunchArgument"):
        assert literal(declaration, "description").strip()
        assert "default_value" in {k.arg for k in declaration.keywords}


@pytest.mark.parametrize("name", FILES)
def test_arguments_declared_are_arguments_used(name):
    declared = [ast.literal_eval(call.args[0]) for call in calls(name, "DeclareLaunchArgument")]
    assert len(declared) == len(set(declared))
    assert set(declared) == {ast.literal_eval(call.args[0]) for call in calls(name, "LaunchConfiguration")}


@pytest.mark.parametrize("name", FILES)
def test_overrides_are_parameters_of_the_node(name):
    known = {parameter.name for parameter in parameters(FILES[name])} | {"use_sim_time"}
    overrides = {
        ast.literal_eval(key)
        for node in ast.walk(ast.parse(path_of(name).read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if key is not None
    }
    assert {"map_path", "use_sim_time"} <= overrides <= known


@pytest.mark.parametrize("name", FILES)
def test_node_is_an_executable_of_the_package(name):
    (node,) = calls(name, "Node")
    assert literal(node, "package") == "nre_ros"
    assert literal(node, "executable") == EXECUTABLES[name]
    assert os.access(ROOT / "scripts" / EXECUTABLES[name], os.X_OK)


@pytest.mark.parametrize("name", FILES)
def test_launch_starts_the_node_with_its_parameters_in_its_namespace(name):
    """For real: the log tells that the map given to launch is not there, or that the builder is active."""
    for module in ("launch.actions", "launch_ros.actions"):
        pytest.importorskip(module, reason="launch and launch_ros are not installed; every ROS 2 distribution has them")
    pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    from launch import LaunchDescription, LaunchService
    from launch.actions import EmitEvent, IncludeLaunchDescription, RegisterEventHandler, TimerAction
    from launch.event_handlers import OnProcessIO
    from launch.events import Shutdown
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    told: list[str] = []
    end = EmitEvent(event=Shutdown())

    def listen(event):
        told.append(event.text.decode())
        settled = "configure failed" in "".join(told) or "activate done" in "".join(told)
        return [end] if settled else None

    service = LaunchService()
    service.include_launch_description(
        LaunchDescription(
            [
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(str(path_of(name))),
                    launch_arguments={"map": "/no/such/map", "namespace": "robot1", "device": "cpu"}.items(),
                ),
                RegisterEventHandler(OnProcessIO(on_stdout=listen, on_stderr=listen)),
                TimerAction(period=60.0, actions=[end]),
            ]
        )
    )
    assert service.run() == 0
    log = "".join(told)
    assert f"robot1.{EXECUTABLES[name]}" in log
    assert ("/no/such/map" in log) if name == "relocalization" else ("activate done" in log)
