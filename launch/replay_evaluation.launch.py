"""Replay a rosbag2 to nre_localizer in a map, and watch or record its answers; ends with the bag.

ros2 launch nre_ros replay_evaluation.launch.py bag:=$PWD/drive_bag map:=$PWD/office_map rviz:=true \
    record:=answers.json

Everything runs on the bag's own clock. With pace:=answer each image waits for the answer to the one before, so that
what is recorded does not depend on the speed of the machine. For errors against the truth: nre_ros evaluate.
"""

import sys

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("nre_ros")
PASSED_ON = ("map", "image", "camera_info", "params_file", "tf_mode", "device", "rviz", "rviz_config", "log_level")
"""Arguments of relocalization.launch.py that have the same meaning here."""


def replay(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    texts = {name: LaunchConfiguration(name).perform(context) for name in ("bag", "rate", "pace", "record", "wait_for")}
    if not texts["bag"]:
        raise RuntimeError("argument bag is empty; give the folder of a rosbag2: bag:=FOLDER")
    command = [sys.executable, "-m", "nre_ros.ros.replay", texts["bag"], "--clock"]
    command += ["--rate", texts["rate"], "--pace", texts["pace"], "--wait-for", texts["wait_for"]]
    if texts["record"]:
        command += ["--record", texts["record"]]
    player = ExecuteProcess(cmd=command, name="nre_replay", output="screen")
    return [player, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[Shutdown(reason="end of bag")]))]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", default_value="", description="Folder of the rosbag2"),
            DeclareLaunchArgument("map", default_value="", description="Folder of the map, from nre_ros build-map"),
            DeclareLaunchArgument(
                "image", default_value="/camera/image_raw", description="Topic of the bag's images, raw or compressed"
            ),
            DeclareLaunchArgument(
                "camera_info", default_value="/camera/camera_info", description="Topic of the bag's calibration"
            ),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed of the replay, with pace stamps"),
            DeclareLaunchArgument(
                "pace",
                default_value="stamps",
                description="stamps: as recorded; answer: each image when the one before is answered",
            ),
            DeclareLaunchArgument(
                "record", default_value="", description="JSON file for the answers and latencies; empty: none"
            ),
            DeclareLaunchArgument(
                "wait_for", default_value="60", description="Longest wait for the node to load its map, s"
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([SHARE, "config", "localizer.yaml"]),
                description="Parameter file; nre_ros config dump prints one to edit",
            ),
            DeclareLaunchArgument(
                "tf_mode", default_value="", description="map_to_odom, map_to_base, map_to_camera or none"
            ),
            DeclareLaunchArgument("device", default_value="", description="auto, cuda or cpu"),
            DeclareLaunchArgument("rviz", default_value="false", description="Show map and answers in RViz"),
            DeclareLaunchArgument(
                "rviz_config",
                default_value=PathJoinSubstitution([SHARE, "config", "relocalization.rviz"]),
                description="Configuration of RViz",
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "relocalization.launch.py"])),
                launch_arguments=[
                    *((name, LaunchConfiguration(name)) for name in PASSED_ON),
                    ("use_sim_time", "true"),
                ],
            ),
            OpaqueFunction(function=replay),
        ]
    )
