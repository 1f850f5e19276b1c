"""A running map builder node with a camera in front of it and something that knows where it is, for tests."""

from __future__ import annotations

import ros_world
import torch
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_harness import Ros
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from nre_ros.geometry import Pose
from nre_ros.recordings.camera_info import info_fields
from nre_ros.recordings.frame import Frame
from nre_ros.recordings.images import encode_depth
from nre_ros.ros import conversions
from nre_ros.ros.map_builder_node import MapBuilderNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BASE_FROM_CAM = Pose.exp(torch.tensor([1.2, -1.2, 1.2, 0.3, 0.1, 0.5], dtype=torch.float64))
EXTRINSICS = [*BASE_FROM_CAM.translation.tolist(), *BASE_FROM_CAM.quat_xyzw().tolist()]
TRIGGER = Trigger.Request()


def image_message(frame: Frame, stamp_ns: int | None = None) -> Image:
    height, width = frame.image_rgb.shape[:2]
    head = conversions.header("cam", frame.stamp_ns if stamp_ns is None else stamp_ns)
    data = frame.image_rgb.tobytes()
    return Image(header=head, height=height, width=width, encoding="rgb8", step=3 * width, data=data)


def values(status) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


class Rig:
    """A map builder node with a camera in front of it and something that knows where it is."""

    def __init__(self, r: Ros, **parameters) -> None:
        given = {"camera_extrinsics": EXTRINSICS, "tf_timeout": 0.2, "max_pose_gap": 10.0, **parameters}
        self.ros = r
        self.node = r.add(MapBuilderNode(parameter_overrides=[Parameter(n, value=v) for n, v in given.items()]))
        assert r.do(self.node.trigger_configure) == SUCCESS
        assert r.do(self.node.trigger_activate) == SUCCESS
        self.image = r.publisher(Image, "image")
        self.depth = r.publisher(Image, "depth")
        self.info = r.publisher(CameraInfo, "camera_info")
        self.meet()

    def meet(self) -> None:
        """After each activation: the camera's calibration."""
        self.ros.wait(lambda: self.info.get_subscription_count(), "subscription to camera_info")
        self.info.publish(CameraInfo(**info_fields(ros_world.CAMERA)))
        self.ros.wait(lambda: self.node._camera._calibration, "camera_info")

    def send(self, frame: Frame, *, depth: bool = True) -> None:
        height, width = frame.image_rgb.shape[:2]
        head = conversions.header("cam", frame.stamp_ns)
        if depth and frame.depth_m is not None:
            data = encode_depth("32FC1", frame.depth_m).tobytes()
            message = Image(header=head, height=height, width=width, encoding="32FC1", step=4 * width, data=data)
            self.depth.publish(message)
            self.ros.wait(lambda: self.node._depth._nearest(frame.stamp_ns), "depth")
        self.image.publish(image_message(frame))
        self.ros.wait(lambda: self.processed(frame.stamp_ns), f"use of the frame; {self.ros.diagnostics[-1:]}")

    def send_anew(self, frame: Frame) -> None:
        """A frame whose stamp was sent before."""
        before = int(self.last()["frames"])
        self.image.publish(image_message(frame))
        self.ros.wait(lambda: int(self.last()["frames"]) > before, "use of the frame")

    def processed(self, stamp_ns: int) -> bool:
        return any(f"{stamp_ns // 10**9}." in values(s)["last image stamp processed"] for s in self.statuses())

    def statuses(self) -> list:
        return [s for s in self.ros.diagnostics if "frames" in values(s)]

    def last(self) -> dict[str, str]:
        return values(self.statuses()[-1])

    def end(self) -> None:
        """Deactivate and clean up."""
        assert self.ros.do(self.node.trigger_deactivate) == SUCCESS
        assert self.ros.do(self.node.trigger_cleanup) == SUCCESS

    def call(self, name: str):
        return self.ros.call(Trigger, f"/nre_map_builder/{name}", TRIGGER)


class PoseSender:
    """Tells the robot's poses in one of the four ways."""

    def __init__(self, r: Ros, source: str) -> None:
        kind, topic = {
            "tf": (TFMessage, "/tf"),
            "odometry": (Odometry, "odom"),
            "pose": (PoseStamped, "pose"),
            "pose_with_covariance": (PoseWithCovarianceStamped, "pose_with_covariance"),
        }[source]
        self._source = source
        self.publisher = r.publisher(kind, topic)

    def send(self, map_from_cam: Pose, stamp_ns: int) -> None:
        map_from_base = map_from_cam @ BASE_FROM_CAM.inverse()
        if self._source == "tf":
            link = conversions.transform_stamped("map", "base_link", map_from_base, stamp_ns)
            return self.publisher.publish(TFMessage(transforms=[link]))
        stamped = conversions.pose_stamped(map_from_base, "map", stamp_ns)
        if self._source == "pose":
            return self.publisher.publish(stamped)
        message = Odometry() if self._source == "odometry" else PoseWithCovarianceStamped()
        message.header, message.pose.pose = stamped.header, stamped.pose
        return self.publisher.publish(message)
