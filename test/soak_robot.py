"""A robot before the node: it drives to and fro in the corner, sends what robots send, and knows the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ros_world
import torch
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_harness import Ros
from sensor_msgs.msg import CameraInfo
from soak_bad_input import TOPICS, BadMessage, good_image
from soak_node import NodeProcess
from tf2_msgs.msg import TFMessage

from nre_ros.config import BuilderConfig
from nre_ros.features import load_network
from nre_ros.geometry import Pose
from nre_ros.mapping import MapBuilder, save_map
from nre_ros.recordings.camera_info import info_fields
from nre_ros.recordings.frame import Frame
from nre_ros.ros.conversions import (
    header,
    pose_from_message,
    pose_from_transform,
    stamp_from_ns,
    stamp_to_ns,
    transform_stamped,
)

NODE = "/nre_localizer"
WRONG_M, WRONG_DEG = 0.15, 5.0
"""A published pose this far from the truth is a wrong one."""
BASE_FROM_CAM = Pose.exp(torch.tensor([1.2, -1.2, 1.2, 0.3, 0.1, 0.5], dtype=torch.float64))
MAP_FROM_ODOM = Pose.exp(torch.tensor([0, 0, 0.7, -2.0, 1.0, 0.0], dtype=torch.float64))
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STEP = 0.03
"""Index of :func:`ros_world.frame` between two images: a walk of about half a metre a second at 30 Hz."""


def enlarged(frame: Frame, scale: int) -> Frame:
    """The same view with ``scale`` times the pixels on each side."""
    if scale == 1:
        return frame
    camera = frame.camera.resized(frame.camera.width * scale, frame.camera.height * scale)
    size = (camera.width, camera.height)
    depth = None if frame.depth_m is None else cv2.resize(frame.depth_m, size, interpolation=cv2.INTER_NEAREST)
    image = cv2.resize(frame.image_rgb, size, interpolation=cv2.INTER_LINEAR)
    return replace(frame, image_rgb=image, camera=camera, depth_m=depth)


def drive(count: int, scale: int = 1) -> list[Frame]:
    """Views to one end of the drive and back, for going round."""
    there = [enlarged(ros_world.frame(STEP * i, 0, noise_seed=i), scale) for i in range(count)]
    return there + there[-2:0:-1]


def build_map(folder: Path, last_index: float, scale: int = 1) -> Path:
    builder = MapBuilder(load_network(), BuilderConfig())
    for i, index in enumerate(np.arange(0, last_index + 1, 1.0)):
        builder.add(enlarged(ros_world.frame(float(index), i * 10**9), scale))
    save_map(builder.build(), folder)
    return folder


@dataclass(frozen=True)
class Heard:
    """A pose that the node published; the errors are None when no image of its stamp showed the scene."""

    stamp_ns: int
    arrived_s: float
    position_m: float | None
    rotation_deg: float | None

    @property
    def wrong(self) -> bool:
        if self.position_m is None or self.rotation_deg is None:
            return True
        return not (self.position_m < WRONG_M and self.rotation_deg < WRONG_DEG)


class Robot:
    """Publishes under the node's default names and judges every pose and transform that comes back."""

    def __init__(self, r: Ros, frames: Sequence[Frame]) -> None:
        self.ros = r
        self.frames = frames
        self.heard: list[Heard] = []
        self.faults: list[str] = []
        """What no pose or transform may be, a sentence each."""
        self._truth: dict[int, Pose] = {}
        self._sent_s: dict[int, float] = {}
        self._at = 0
        self._last_ns = 0
        node = r.node
        self.publishers = {
            topic: node.create_publisher(kind, topic, LATCHED if topic == "/tf_static" else 10)
            for topic, kind in TOPICS.items()
        }
        node.create_subscription(PoseStamped, f"{NODE}/pose", self._on_pose, 100)
        node.create_subscription(PoseWithCovarianceStamped, f"{NODE}/pose_with_covariance", self._on_covariance, 100)
        node.create_subscription(TFMessage, "/tf", self._on_tf, 1000)

    @property
    def frame(self) -> Frame:
        """What the camera sees now."""
        return self.frames[self._at]

    @property
    def wrong(self) -> list[Heard]:
        return [pose for pose in self.heard if pose.wrong]

    def meet(self, node: NodeProcess, timeout_s: float = 60.0) -> None:
        """Until the node listens; fails with its last words."""
        for topic in ("image", "camera_info", "initialpose", "/tf", "/tf_static"):
            publisher = self.publishers[topic]
            # the robot hears /tf itself
            least = 2 if topic == "/tf" else 1
            deadline = time.monotonic() + timeout_s
            while publisher.get_subscription_count() < least:
                assert time.monotonic() < deadline, f"nobody subscribed to {topic}; the node: {node.last_words()}"
                time.sleep(0.01)

    def step(self, *, stamp_ns: int | None = None, image: bool = True, scale_down: int = 1) -> int:
        """Drive on by one image and send odometry, calibration and image; returns the image's stamp.

        ``image`` False leaves the image out, ``scale_down`` halves it (2) with its calibration.
        """
        self._at = (self._at + 1) % len(self.frames)
        frame = self.frame
        if scale_down > 1:
            camera = frame.camera.resized(frame.camera.width // scale_down, frame.camera.height // scale_down)
            small = cv2.resize(frame.image_rgb, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
            frame = replace(frame, image_rgb=small, camera=camera)
        stamp_ns = self.now_ns() if stamp_ns is None else stamp_ns
        odom_from_base = MAP_FROM_ODOM.inverse() @ self._map_from_base()
        self.publishers["/tf"].publish(
            TFMessage(transforms=[transform_stamped("odom", "base_link", odom_from_base, stamp_ns)])
        )
        self.publishers["camera_info"].publish(CameraInfo(header=header("cam", stamp_ns), **info_fields(frame.camera)))
        self._note(stamp_ns)
        if image:
            self.publishers["image"].publish(good_image(frame, stamp_from_ns(stamp_ns)))
        return stamp_ns

    def mount_camera(self) -> None:
        transform = transform_stamped("base_link", "cam", BASE_FROM_CAM, 0)
        self.publishers["/tf_static"].publish(TFMessage(transforms=[transform]))

    def send_bad(self, bad: BadMessage) -> None:
        if bad.shows:
            self._note(stamp_to_ns(bad.content.header.stamp))
        self.publishers[bad.topic].publish(bad.content)

    def recover(self, limit_s: float, rate_hz: float = 15.0, **how: Any) -> float:
        """Send good input until a right pose comes of it; the seconds that took, infinite past the limit."""
        started_s = time.monotonic()
        asked: set[int] = set()
        self.mount_camera()
        before = len(self.heard)
        while (passed_s := time.monotonic() - started_s) < limit_s:
            asked.add(self.step(**how))
            self.rest(1 / rate_hz)
            if any(pose.stamp_ns in asked and not pose.wrong for pose in self.heard[before:]):
                return time.monotonic() - started_s
        assert passed_s >= limit_s
        return math.inf

    def stream(self, seconds: float, rate_hz: float, **how: Any) -> list[int]:
        """Good input at a rate that does not drift; returns the stamps of the images."""
        stamps, started_s = [], time.monotonic()
        for i in range(int(seconds * rate_hz)):
            self.rest(started_s + i / rate_hz - time.monotonic())
            stamps.append(self.step(**how))
        return stamps

    def latencies_s(self, stamps: Sequence[int]) -> list[float]:
        """From sending an image to its pose, of those that were answered."""
        asked = set(stamps)
        return [p.arrived_s - self._sent_s[p.stamp_ns] for p in self.heard if p.stamp_ns in asked]

    def rest(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def now_ns(self) -> int:
        """The time, never the same twice: stamps name images."""
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def _map_from_base(self) -> Pose:
        map_from_cam = self.frame.map_from_cam
        assert map_from_cam is not None
        return map_from_cam @ BASE_FROM_CAM.inverse()

    def _note(self, stamp_ns: int) -> None:
        self._truth[stamp_ns] = self._map_from_base()
        self._sent_s[stamp_ns] = time.monotonic()
        while len(self._truth) > 5000:
            oldest = next(iter(self._truth))
            del self._truth[oldest], self._sent_s[oldest]

    def _on_pose(self, message: PoseStamped) -> None:
        stamp_ns, now_s = stamp_to_ns(message.header.stamp), time.monotonic()
        truth = self._truth.get(stamp_ns)
        if truth is None:
            self.heard.append(Heard(stamp_ns, now_s, None, None))
            return
        pose = pose_from_message(message.pose)  # raises for NaN, which fails the run
        error = truth.inverse() @ pose
        angle = float(torch.rad2deg(error.log()[:3].norm()))
        self.heard.append(Heard(stamp_ns, now_s, float(error.translation.norm()), angle))

    def _on_covariance(self, message: PoseWithCovarianceStamped) -> None:
        covariance = np.reshape(message.pose.covariance, (6, 6))
        if not np.isfinite(covariance).all() or (np.linalg.eigvalsh(covariance) <= 0).any():
            self.faults.append(f"covariance of the pose at {stamp_to_ns(message.header.stamp)} is none")

    def _on_tf(self, message: TFMessage) -> None:
        for transform in message.transforms:
            if (transform.header.frame_id, transform.child_frame_id) == ("map", "odom"):
                try:
                    pose_from_transform(transform)
                except Exception as error:
                    self.faults.append(f"map -> odom is no transform: {error}")
