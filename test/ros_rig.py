"""A running localizer node with a camera in front of it, for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ros_world
import torch
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_harness import Ros
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from nre_ros.geometry import Pose
from nre_ros.recordings.camera_info import info_fields
from nre_ros.recordings.frame import Frame
from nre_ros.ros import conversions
from nre_ros.ros.localizer_node import LocalizerNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BASE_FROM_CAM = Pose.exp(torch.tensor([1.2, -1.2, 1.2, 0.3, 0.1, 0.5], dtype=torch.float64))
ODOM_FROM_BASE = Pose.exp(torch.tensor([0, 0, 0.7, -2.0, 1.0, 0.0], dtype=torch.float64))
PATIENT = {"slow_latency": 60.0, "stale_timeout": 60.0}
"""Tests run on busy machines; what these parameters do is tested where they are set."""
QUERY = ros_world.frame(1.5, 50 * 10**9, noise_seed=1)
DARK = replace(QUERY, image_rgb=np.zeros_like(QUERY.image_rgb))
EXTRINSICS = [*BASE_FROM_CAM.translation.tolist(), *BASE_FROM_CAM.quat_xyzw().tolist()]


def image_message(frame: Frame, frame_id: str = "cam") -> Image:
    height, width = frame.image_rgb.shape[:2]
    data = frame.image_rgb.tobytes()
    head = conversions.header(frame_id, frame.stamp_ns)
    return Image(header=head, height=height, width=width, encoding="rgb8", step=3 * width, data=data)


def info_message(camera=ros_world.CAMERA) -> CameraInfo:
    return CameraInfo(header=conversions.header("cam", 0), **info_fields(camera))


class Rig:
    """A localizer node, a camera in front of it, and ears for what it says."""

    def __init__(
        self, r: Ros, map_path: str, *, space: str = "", arguments: tuple[str, ...] = (), **parameters
    ) -> None:
        given = {
            "map_path": map_path,
            "camera_extrinsics": EXTRINSICS,
            "tf_timeout": 0.1,
            "mode": "global",
            **PATIENT,
            **ros_world.QUICK,
            **parameters,
        }
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        self.ros = r
        self.space = space
        self.poses = r.collect(PoseStamped, f"{space}/nre_localizer/pose")
        self.covariances = r.collect(PoseWithCovarianceStamped, f"{space}/nre_localizer/pose_with_covariance")
        self.tf: list = []
        r.node.create_subscription(TFMessage, "/tf", lambda m: self.tf.extend(m.transforms), 100)
        self.node = r.add(
            LocalizerNode(namespace=space, cli_args=["--ros-args", *arguments], parameter_overrides=overrides)
        )

    def start(self) -> Rig:
        assert self.ros.do(self.node.trigger_configure) == SUCCESS, self.ros.diagnostics
        assert self.ros.do(self.node.trigger_activate) == SUCCESS
        self.image = self.ros.publisher(Image, self.node._camera._images.topic_name)
        self.info = self.ros.publisher(CameraInfo, self.node._camera._info.topic_name)
        self.info.publish(info_message())
        self.ros.wait(lambda: self.node._camera._calibration, "camera_info")
        return self

    def send(self, frame: Frame = QUERY) -> None:
        self.image.publish(image_message(frame))

    def wait_for_pose(self, count: int = 1) -> PoseStamped:
        self.ros.wait(lambda: len(self.poses) >= count, f"pose number {count}; diagnostics: {self.last_words()}")
        return self.poses[-1]

    def last_words(self) -> list[str]:
        return [status.message for status in self.ros.diagnostics[-3:]]

    def links(self, parent: str, child: str) -> list:
        return [t for t in self.tf if (t.header.frame_id, t.child_frame_id) == (parent, child)]


def assert_same(a: Pose, b: Pose, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(a.matrix(), b.matrix(), rtol=0, atol=tolerance)


def values_of(status) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}
