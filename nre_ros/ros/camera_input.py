"""The subscriptions to a camera, shared by both nodes: images of either transport, and the calibration they need."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.errors import CalibrationError, NreError
from nre_ros.geometry import Camera
from nre_ros.recordings.camera_info import camera_from_info, check_size
from nre_ros.recordings.frame import Frame
from nre_ros.ros.conversions import image_rgb_from_message, stamp_to_ns
from nre_ros.ros.qos_watch import QosWatch

NEWEST_ONLY = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Matches reliable and best-effort publishers, and never queues."""


@dataclass(frozen=True)
class Snapshot:
    """An image message as it came, with the calibration of that moment; ``number`` counts from 1."""

    message: Image | CompressedImage
    calibration: Camera | CalibrationError
    number: int
    received_s: float

    @property
    def stamp_ns(self) -> int:
        return stamp_to_ns(self.message.header.stamp)

    @property
    def frame_id(self) -> str:
        return self.message.header.frame_id

    def to_frame(self) -> Frame:
        """Decode; raises RecordingError or CalibrationError. Slow for large images: not for a callback."""
        if isinstance(self.calibration, CalibrationError):
            raise self.calibration
        image_rgb = image_rgb_from_message(self.message)
        check_size(self.calibration, image_rgb)
        return Frame(self.stamp_ns, image_rgb, self.calibration)


class CameraInput:
    """Hands each image on as a :class:`Snapshot`, from the moment a calibration is known.

    An image that comes before the first camera_info is held (the newest only) and handed on with it: the two are
    sent together, but arrive in any order.
    """

    def __init__(
        self, node: Node, on_image: Callable[[Snapshot], None], depth: int = 1, watch: QosWatch | None = None
    ) -> None:
        self._node = node
        self._on_image = on_image
        self._calibration: Camera | CalibrationError | None = None
        self._held: Image | CompressedImage | None = None
        self._since_s = time.monotonic()
        self._last_image_s: float | None = None
        self._last_transport: tuple[type, int] | None = None
        self.count = 0
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)

        def subscribe(kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> Any:
            events = watch.subscription(topic) if watch else None
            return node.create_subscription(kind, topic, callback, qos, event_callbacks=events)

        self._images = subscribe(Image, "image", self._take_image, qos)
        self._compressed = subscribe(CompressedImage, _compressed_topic(node), self._take_image, qos)
        self._info = subscribe(CameraInfo, "camera_info", self._take_info, NEWEST_ONLY)

    def close(self) -> None:
        for subscription in (self._images, self._compressed, self._info):
            self._node.destroy_subscription(subscription)

    @property
    def silence_s(self) -> float:
        """Time since the last image, or since the subscription when none has come."""
        return time.monotonic() - (self._since_s if self._last_image_s is None else self._last_image_s)

    @property
    def seen(self) -> bool:
        """Whether any image has come."""
        return self._last_image_s is not None

    def missing_images(self) -> str:
        """The sentence for a camera that is silent."""
        topics = (self._images.topic_name, self._compressed.topic_name)
        publishers = sum(self._node.count_publishers(topic) for topic in topics)
        hint = "check the camera driver" if publishers else "nobody publishes there: check the remapping"
        return f"no images: nothing received on {topics[0]} or {topics[1]} for {self.silence_s:.1f} s; {hint}"

    def calibration_trouble(self) -> str:
        """The sentence for a calibration that is missing or bad, empty when there is a good one."""
        topic = self._info.topic_name
        if isinstance(self._calibration, CalibrationError):
            return f"no calibration: {topic} is refused: {self._calibration}"
        if self._calibration is None:
            hint = "" if self._node.count_publishers(topic) else "; nobody publishes there: check the remapping"
            return f"no calibration: nothing received on {topic}{hint}"
        return ""

    def _take_image(self, message: Image | CompressedImage) -> None:
        self._last_image_s = time.monotonic()
        if self._is_twin(message):
            return
        self.count += 1
        if self._calibration is None:
            self._held = message
        else:
            self._hand_on(message, self._calibration)

    def _take_info(self, message: CameraInfo) -> None:
        try:
            self._calibration = camera_from_info(message)
        except NreError as error:
            self._calibration = CalibrationError(str(error))
            self._node.get_logger().error(self.calibration_trouble(), throttle_duration_sec=10.0)
        if self._held is not None:
            held, self._held = self._held, None
            self._hand_on(held, self._calibration)

    def _hand_on(self, message: Image | CompressedImage, calibration: Camera | CalibrationError) -> None:
        self._on_image(Snapshot(message, calibration, self.count, self._last_image_s or 0.0))

    def _is_twin(self, message: Image | CompressedImage) -> bool:
        """Whether the other transport has just brought the same image."""
        before, self._last_transport = self._last_transport, (type(message), stamp_to_ns(message.header.stamp))
        return before is not None and before[0] is not type(message) and before[1] == self._last_transport[1]


def _compressed_topic(node: Node) -> str:
    """``image/compressed`` follows a remapped ``image``, as image_transport has it, unless it is remapped itself."""
    name: Any = node.resolve_topic_name("image/compressed")
    if name != node.resolve_topic_name("image/compressed", only_expand=True):
        return name
    return f"{node.resolve_topic_name('image')}/compressed"
