"""Listens to a running ROS system and says what the localizer would lack in it; ``nre_ros doctor`` starts it.

``python -m nre_ros.ros.doctor_graph --help``; prints one JSON list of findings.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from nre_ros.errors import NreError
from nre_ros.recordings.camera_info import camera_from_info, check_size
from nre_ros.ros.conversions import image_rgb_from_message, stamp_to_ns

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=100)
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OURS = "nre_localizer"
STAMP_TOLERANCE_S = 5.0
LEAST_LISTENING_S = 0.5
OK, WARN, FAIL = "ok", "warn", "fail"


class GraphExaminer:
    """Subscribes as the localizer does; :meth:`findings` after some seconds of spinning."""

    def __init__(self, node: Node, options: argparse.Namespace) -> None:
        self._node = node
        self._options = options
        self._found: list[dict[str, str]] = []
        self._last: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._edges: dict[str, str] = {}
        self._status: dict[str, Any] = {}
        space = f"/{options.namespace.strip('/')}" if options.namespace.strip("/") else ""
        image = _absolute(options.image, space)
        self._image, self._compressed = image, f"{image}/compressed"
        self._info = _absolute(options.camera_info, space)
        self._wanted: dict[str, tuple[type, QoSProfile]] = {
            self._image: (Image, BEST_EFFORT),
            self._compressed: (CompressedImage, BEST_EFFORT),
            self._info: (CameraInfo, BEST_EFFORT),
            "/tf": (TFMessage, RELIABLE),
            "/tf_static": (TFMessage, LATCHED),
        }
        for topic, (kind, qos) in self._wanted.items():
            node.create_subscription(kind, topic, partial(self._take, topic), qos)
        node.create_subscription(Clock, "/clock", partial(self._take, "/clock"), BEST_EFFORT)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, RELIABLE)

    def findings(self) -> list[dict[str, str]]:
        others = sorted(name for name in self._node.get_node_names() if name != self._node.get_name())
        rmw = rclpy.get_rmw_implementation_identifier()
        self._say(OK, "ROS", f"{rmw}; {len(others)} nodes: {', '.join(others[:12]) or 'none'}")
        if not others and not any(self._counts.values()):
            advice = "start the robot's nodes, or set the ROS_DOMAIN_ID and discovery range that they have"
            self._say(WARN, "ROS", "nothing else runs in this ROS domain", advice)
            return self._found
        for topic in self._wanted:
            self._check_publishers(topic)
        self._check_images()
        self._check_frames()
        self._check_clock()
        self._check_localizer(others)
        return self._found

    def _check_publishers(self, topic: str) -> None:
        kind, qos = self._wanted[topic]
        name = _type_name(kind)
        for endpoint in self._node.get_publishers_info_by_topic(topic):
            who = f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
            if endpoint.topic_type != name:
                advice = "remap the localizer to the right topic"
                self._say(FAIL, topic, f"{who} sends {endpoint.topic_type}, expected {name}", advice)
                continue
            fits, reason = qos_check_compatible(endpoint.qos_profile, qos)
            offered = f"{endpoint.qos_profile.reliability.name}, {endpoint.qos_profile.durability.name}".lower()
            if fits == QoSCompatibility.ERROR:
                wanted = f"{qos.reliability.name}, {qos.durability.name}".lower()
                advice = f"let {who} publish {wanted}"
                self._say(FAIL, topic, f"QoS of {who} ({offered}) does not fit: {reason.rstrip(';')}", advice)
            else:
                self._say(OK, topic, f"{who}, {offered}, {self._counts.get(topic, 0)} messages heard")

    def _check_images(self) -> None:
        message = self._last.get(self._image) or self._last.get(self._compressed)
        info = self._last.get(self._info)
        if message is None:
            self._missing("images", (self._image, self._compressed), (Image, CompressedImage), "image")
        if info is None:
            self._missing("camera_info", (self._info,), (CameraInfo,), "camera_info")
        camera = None
        if info is not None:
            try:
                camera = camera_from_info(info)
                self._say(
                    OK, "calibration", f"{camera.width}x{camera.height}, {camera.model.value}, fx {camera.fx:.1f}"
                )
            except NreError as error:
                self._say(FAIL, "calibration", str(error), "calibrate the camera, or mend its driver's camera_info_url")
        if message is None:
            return
        try:
            image_rgb = image_rgb_from_message(message)
            what = getattr(message, "encoding", getattr(message, "format", ""))
            self._say(OK, "images", f"{image_rgb.shape[1]}x{image_rgb.shape[0]}, {what}")
            if camera is not None:
                check_size(camera, image_rgb)
        except NreError as error:
            self._say(FAIL, "images", str(error), "mend the camera driver's settings")

    def _missing(self, what: str, topics: tuple[str, ...], kinds: tuple[type, ...], argument: str) -> None:
        publishers = sum(len(self._node.get_publishers_info_by_topic(topic)) for topic in topics)
        if publishers:
            advice = "check the driver and its QoS; large images need the Fast DDS profile on both sides"
            self._say(FAIL, what, f"none came from {' or '.join(topics)} though something publishes there", advice)
            return
        names = {_type_name(kind) for kind in kinds}
        others = [t for t, types in self._node.get_topic_names_and_types() if names & set(types) and t not in topics]
        candidates = [t for t in others if self._node.count_publishers(t)]
        advice = f"remap: {argument}:={candidates[0]}" if candidates else "start the camera driver"
        more = f" (others of that type: {', '.join(candidates[:5])})" if candidates else ""
        self._say(FAIL, what, f"nobody publishes {' or '.join(topics)}{more}", advice)

    def _check_frames(self) -> None:
        o = self._options
        frames = sorted({*self._edges, *self._edges.values()})
        if not frames:
            advice = "start robot_state_publisher and odometry; or set camera_extrinsics and tf_mode:=map_to_base"
            self._say(WARN, "TF", "no transforms came", advice)
            return
        self._say(OK, "TF", f"{len(frames)} frames: {', '.join(frames[:20])}")
        self._check_chain(o.odom_frame, o.base_frame, "start odometry; without any: tf_mode:=map_to_base")
        message = self._last.get(self._image) or self._last.get(self._compressed)
        if message is not None and not message.header.frame_id:
            self._say(WARN, "TF", "images have no header.frame_id", "set the parameter camera_frame_id")
        elif message is not None:
            advice = "publish it on /tf_static or set the parameter camera_extrinsics"
            self._check_chain(o.base_frame, message.header.frame_id.lstrip("/"), advice)

    def _check_chain(self, a: str, b: str, advice: str) -> None:
        if self._root(a) == self._root(b) and {a, b} <= {*self._edges, *self._edges.values()}:
            self._say(OK, "TF", f"{a} and {b} are connected")
        else:
            self._say(WARN, "TF", f"{a} and {b} are not connected", advice)

    def _root(self, frame: str) -> str:
        for _ in range(len(self._edges)):
            frame = self._edges.get(frame, frame)
        return frame

    def _check_clock(self) -> None:
        clock = self._last.get("/clock")
        message = self._last.get(self._image) or self._last.get(self._compressed)
        if clock is not None:
            self._say(OK, "clock", "/clock runs: the localizer needs use_sim_time:=true")
        now_ns = stamp_to_ns(clock.clock) if clock is not None else time.time_ns()
        if message is None:
            return
        stamp_ns = stamp_to_ns(message.header.stamp)
        behind_s = (now_ns - stamp_ns) * 1e-9
        if stamp_ns == 0:
            self._say(FAIL, "clock", "images are stamped 0", "let the driver stamp them: odometry is looked up by it")
        elif abs(behind_s) > STAMP_TOLERANCE_S:
            advice = "synchronize the machines' clocks (chrony); for a bag: play it with --clock and use_sim_time:=true"
            self._say(WARN, "clock", f"images are stamped {behind_s:.1f} s before now", advice)
        else:
            self._say(OK, "clock", f"images are stamped {behind_s:.2f} s before now")

    def _check_localizer(self, others: list[str]) -> None:
        if OURS not in others:
            self._say(OK, OURS, "does not run here")
        for name, (level, text) in sorted(self._status.items()):
            self._say({0: OK, 1: WARN}.get(level, FAIL), OURS, f"{name} says: {text}")

    def _take(self, topic: str, message: Any) -> None:
        self._counts[topic] = self._counts.get(topic, 0) + 1
        self._last[topic] = message
        if isinstance(message, TFMessage):
            for transform in message.transforms:
                self._edges[transform.child_frame_id.lstrip("/")] = transform.header.frame_id.lstrip("/")

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(OURS):
                self._status[status.hardware_id] = (status.level[0], status.message)

    def _say(self, level: str, subject: str, text: str, advice: str = "") -> None:
        self._found.append({"level": level, "subject": subject, "text": text, "advice": advice})


def _absolute(name: str, space: str) -> str:
    return name if name.startswith("/") else f"{space}/{name}"


def _type_name(kind: type) -> str:
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--image", default="image")
    parser.add_argument("--camera-info", default="camera_info")
    parser.add_argument("--namespace", default="")
    parser.add_argument("--odom-frame", default="odom")
    parser.add_argument("--base-frame", default="base_link")
    parser.add_argument("--listen", type=float, default=3.0)
    options = parser.parse_args(args)
    rclpy.init(args=[])
    node = Node("nre_doctor")
    try:
        examiner = GraphExaminer(node, options)
        deadline = time.monotonic() + max(options.listen, LEAST_LISTENING_S)
        while (left_s := deadline - time.monotonic()) > 0:
            rclpy.spin_once(node, timeout_sec=left_s)
        print(json.dumps(examiner.findings()))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
