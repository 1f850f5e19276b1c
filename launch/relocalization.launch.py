"""Start nre_localizer.

ros2 launch nre_ros relocalization.launch.py map:=FOLDER image:=/camera/image_raw camera_info:=/camera/camera_info

Arguments that are left empty keep what the parameter file says.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from nre_ros.config import LocalizerNodeConfig, parse_assignments

SHARE = FindPackageShare("nre_ros")
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
SHOWN = ("map_points", "keyframes", "pose_with_covariance", "path", "hypotheses", "debug_image")
"""Topics of the node in RViz's configuration, which names them without a namespace."""


def localizer(context: LaunchContext) -> list[Node]:
    given = {
        "map_path": LaunchConfiguration("map"),
        "autostart": LaunchConfiguration("autostart"),
        "device": LaunchConfiguration("device"),
        "tf_mode": LaunchConfiguration("tf_mode"),
        "global_frame_id": LaunchConfiguration("global_frame_id"),
        "odom_frame_id": LaunchConfiguration("odom_frame_id"),
        "base_frame_id": LaunchConfiguration("base_frame_id"),
    }
    texts = {name: value.perform(context) for name, value in given.items()}
    overrides = parse_assignments(LocalizerNodeConfig, [f"{name}={text}" for name, text in texts.items() if text])
    return [
        Node(
            package="nre_ros",
            executable="nre_localizer",
            name="nre_localizer",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[
                LaunchConfiguration("params_file"),
                {"use_sim_time": LaunchConfiguration("use_sim_time"), **overrides},
            ],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        )
    ]


def rviz() -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", LaunchConfiguration("rviz_config")],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        remappings=[
            *((f"/nre_localizer/{topic}", f"nre_localizer/{topic}") for topic in SHOWN),
            ("/initialpose", "initialpose"),
        ],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("map", default_value="", description="Folder of the map, from nre_ros build-map"),
            DeclareLaunchArgument("image", default_value="image", description="Topic of the camera's images"),
            DeclareLaunchArgument(
                "camera_info", default_value="camera_info", description="Topic of the camera's calibration"
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([SHARE, "config", "localizer.yaml"]),
                description="Parameter file; nre_ros config dump prints one to edit",
            ),
            DeclareLaunchArgument(
                "tf_mode", default_value="", description="map_to_odom, map_to_base, map_to_camera or none"
            ),
            DeclareLaunchArgument("global_frame_id", default_value="", description="Frame of the published poses"),
            DeclareLaunchArgument("odom_frame_id", default_value="", description="Odometry frame"),
            DeclareLaunchArgument("base_frame_id", default_value="", description="Robot frame"),
            DeclareLaunchArgument("device", default_value="", description="auto, cuda or cpu"),
            DeclareLaunchArgument(
                "autostart", default_value="true", description="Configure and activate the node without being asked"
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock"),
            DeclareLaunchArgument("rviz", default_value="false", description="Show RViz too: true or false"),
            DeclareLaunchArgument(
                "rviz_config",
                default_value=PathJoinSubstitution([SHARE, "config", "relocalization.rviz"]),
                description="Configuration of RViz",
            ),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            DeclareLaunchArgument(
                "fastdds_profile",
                default_value=EnvironmentVariable(
                    PROFILE, default_value=PathJoinSubstitution([SHARE, "config", "fastdds_large_images.xml"])
                ),
                description="Fast DDS profile; the default one has room for images, the camera driver needs it too",
            ),
            SetEnvironmentVariable(PROFILE, LaunchConfiguration("fastdds_profile")),
            OpaqueFunction(function=localizer),
            rviz(),
        ]
    )
