"""Start nre_map_builder.

ros2 launch nre_ros mapping.launch.py map:=FOLDER image:=/camera/image_raw camera_info:=/camera/camera_info

The map is written by the service ~/save_map; until then keyframes are kept in FOLDER/journal, from where a node that
was killed goes on. Arguments that are left empty keep what the parameter file says.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from nre_ros.config import BuilderNodeConfig, parse_assignments

SHARE = FindPackageShare("nre_ros")
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
SHOWN = ("map_points", "keyframes")
"""Topics of the node in RViz's configuration, which names those of nre_localizer."""


def map_builder(context: LaunchContext) -> list[Node]:
    given = {
        "map_path": LaunchConfiguration("map"),
        "autostart": LaunchConfiguration("autostart"),
        "device": LaunchConfiguration("device"),
        "pose_source": LaunchConfiguration("pose_source"),
        "resume": LaunchConfiguration("resume"),
        "global_frame_id": LaunchConfiguration("global_frame_id"),
        "base_frame_id": LaunchConfiguration("base_frame_id"),
    }
    texts = {name: value.perform(context) for name, value in given.items()}
    overrides = parse_assignments(BuilderNodeConfig, [f"{name}={text}" for name, text in texts.items() if text])
    return [
        Node(
            package="nre_ros",
            executable="nre_map_builder",
            name="nre_map_builder",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[
                LaunchConfiguration("params_file"),
                {"use_sim_time": LaunchConfiguration("use_sim_time"), **overrides},
            ],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
                ("depth", LaunchConfiguration("depth")),
                ("odom", LaunchConfiguration("odom")),
                ("pose", LaunchConfiguration("pose")),
                ("pose_with_covariance", LaunchConfiguration("pose_with_covariance")),
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
        remappings=[(f"/nre_localizer/{topic}", f"nre_map_builder/{topic}") for topic in SHOWN],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("map", default_value="", description="Folder that ~/save_map writes"),
            DeclareLaunchArgument("image", default_value="image", description="Topic of the camera's images"),
            DeclareLaunchArgument(
                "camera_info", default_value="camera_info", description="Topic of the camera's calibration"
            ),
            DeclareLaunchArgument(
                "depth", default_value="depth", description="Topic of depth images registered to the images, if any"
            ),
            DeclareLaunchArgument(
                "pose_source", default_value="", description="tf, odometry, pose or pose_with_covariance"
            ),
            DeclareLaunchArgument(
                "resume", default_value="", description="Take up the keyframes of an interrupted session: true or false"
            ),
            DeclareLaunchArgument("odom", default_value="odom", description="Topic of pose_source odometry"),
            DeclareLaunchArgument("pose", default_value="pose", description="Topic of pose_source pose"),
            DeclareLaunchArgument(
                "pose_with_covariance",
                default_value="pose_with_covariance",
                description="Topic of pose_source pose_with_covariance",
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([SHARE, "config", "map_builder.yaml"]),
                description="Parameter file; nre_ros config dump --node map_builder prints one to edit",
            ),
            DeclareLaunchArgument("global_frame_id", default_value="", description="Frame of the poses and the map"),
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
            OpaqueFunction(function=map_builder),
            rviz(),
        ]
    )
