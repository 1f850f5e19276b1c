"""Launch files: read as source everywhere, and really loaded where launch is installed."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
import yaml

from nre_ros.config import BuilderNodeConfig, LocalizerNodeConfig, parameters

ROOT = Path(__file__).parents[1]
NODES = {"relocalization": LocalizerNodeConfig, "mapping": BuilderNodeConfig}
FILES = [*NODES, "replay_evaluation"]
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
    used = {
        ast.literal_eval(a)
        for call in calls(name, "LaunchConfiguration")
        if isinstance(a := call.args[0], ast.Constant)
    }
    assert set(declared) == used | names_in_tuples(name)


def names_in_tuples(name: str) -> set[str]:
    """Arguments that are used by a loop over their names."""
    tree = ast.parse(path_of(name).read_text())
    loops = [n for n in ast.walk(tree) if isinstance(n, ast.comprehension)]
    tuples = [n.iter for n in loops if isinstance(n.iter, ast.Tuple)]
    named = {n.iter.id for n in loops if isinstance(n.iter, ast.Name)}
    tuples += [
        n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) in named and ast.unparse(n.targets[0]) == "PASSED_ON"
    ]
    return {element for one in tuples for element in ast.literal_eval(one)}


@pytest.mark.parametrize("name", NODES)
def test_overrides_are_parameters_of_the_node(name):
    known = {parameter.name for parameter in parameters(NODES[name])} | {"use_sim_time"}
    overrides = {
        ast.literal_eval(key)
        for node in ast.walk(ast.parse(path_of(name).read_text()))
        if isinstance(node, ast.Dict)
        for key in node.keys
        if key is not None
    }
    assert {"map_path", "use_sim_time"} <= overrides <= known


@pytest.mark.parametrize("name", NODES)
def test_node_is_an_executable_of_the_package(name):
    (node,) = [call for call in calls(name, "Node") if literal(call, "package") != "rviz2"]
    assert literal(node, "package") == "nre_ros"
    assert literal(node, "executable") == EXECUTABLES[name]
    assert os.access(ROOT / "scripts" / EXECUTABLES[name], os.X_OK)


def test_replay_passes_on_arguments_that_there_are():
    passed = names_in_tuples("replay_evaluation") - {"bag", "rate", "pace", "record", "wait_for"}
    declared = {ast.literal_eval(call.args[0]) for call in calls("relocalization", "DeclareLaunchArgument")}
    assert {"map", "image", "camera_info", "rviz"} <= passed <= declared


def rviz_config() -> dict:
    return yaml.safe_load((ROOT / "config" / "relocalization.rviz").read_text())


def rviz_topics() -> dict[str, tuple[str, dict]]:
    """Class and topic entry of every display and tool that has one, by topic."""
    manager = rviz_config()["Visualization Manager"]
    items = [item for item in manager["Displays"] + manager["Tools"] if "Topic" in item]
    return {
        item["Topic"]["Value"]: (item["Class"].removeprefix("rviz_default_plugins/"), item["Topic"]) for item in items
    }


DISPLAYS = {
    "sensor_msgs/msg/PointCloud2": "PointCloud2",
    "visualization_msgs/msg/MarkerArray": "MarkerArray",
    "nav_msgs/msg/Path": "Path",
    "geometry_msgs/msg/PoseWithCovarianceStamped": "PoseWithCovariance",
    "geometry_msgs/msg/PoseArray": "PoseArray",
    "sensor_msgs/msg/Image": "Image",
}
"""What RViz shows each type by."""


def test_rviz_shows_topics_of_the_node_by_their_type_and_with_a_qos_that_fits():
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    from rclpy.qos import DurabilityPolicy

    from nre_ros.ros.localizer_node import LocalizerNode

    rclpy.init(args=[])
    try:
        node = LocalizerNode()
        published = {
            p.topic_name: (f"{p.msg_type.__module__.split('.')[0]}/msg/{p.msg_type.__name__}", p.qos_profile)
            for p in node.publishers
        }
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    shown = {topic: entry for topic, entry in rviz_topics().items() if topic.startswith("/nre_localizer/")}
    assert len(shown) == len(DISPLAYS)
    for topic, (display, asked) in shown.items():
        kind, qos = published[topic]
        assert display == DISPLAYS[kind]
        latched = asked["Durability Policy"] == "Transient Local"
        assert not latched or qos.durability == DurabilityPolicy.TRANSIENT_LOCAL, f"{topic} would show nothing"


def test_rviz_colours_the_map_by_height_and_sends_the_initial_pose():
    manager = rviz_config()["Visualization Manager"]
    (points,) = [item for item in manager["Displays"] if item["Class"].endswith("PointCloud2")]
    assert (points["Color Transformer"], points["Axis"], points["Autocompute Value Bounds"]["Value"]) == (
        "AxisColor",
        "Z",
        True,
    )
    assert rviz_topics()["/initialpose"][0] == "SetInitialPose"
    assert any(item["Class"].endswith("/TF") for item in manager["Displays"])
    assert manager["Global Options"]["Fixed Frame"] == LocalizerNodeConfig().global_frame_id


@pytest.mark.parametrize("name", NODES)
def test_rviz_of_a_namespace_shows_the_topics_of_that_namespace(name):
    """The configuration names absolute topics; launch remaps each that the node has."""
    tree = ast.parse(path_of(name).read_text())
    (shown,) = [
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "SHOWN"
    ]
    topics = {topic.removeprefix("/nre_localizer/") for topic in rviz_topics() if topic.startswith("/nre_localizer/")}
    assert set(shown) == topics if name == "relocalization" else set(shown) <= topics


@pytest.mark.parametrize("name", NODES)
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
