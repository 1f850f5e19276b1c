"""What a localizer node answers while a bag is replayed to it."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from tf2_msgs.msg import TFMessage

from nre_ros.geometry.pose_track import seconds
from nre_ros.ros.conversions import stamp_to_ns

PROCESSED = "last image stamp processed"
"""The diagnostics' key that tells of images which led to no pose."""


class ReplayRecord:
    """Listens from its construction on; ``asdict`` gives what goes into the JSON file.

    Times are wall-clock nanoseconds; poses are x y z and a quaternion x y z w.
    """

    def __init__(self, node: Node, pose_topic: str) -> None:
        self._node = node
        self._node_name = pose_topic.rpartition("/")[0]
        self._changed = threading.Condition()
        self._published_ns: dict[int, int] = {}
        self._answered: set[int] = set()
        self._poses: list[dict[str, Any]] = []
        self._covariances: list[dict[str, Any]] = []
        self._transforms: list[dict[str, Any]] = []
        self._own_edges: set[tuple[str, str]] = set()
        self._diagnostics: dict[str, Any] = {}
        deep = QoSProfile(depth=1000)
        self._answers = node.create_subscription(PoseStamped, pose_topic, self._take_pose, deep)
        node.create_subscription(
            PoseWithCovarianceStamped, f"{pose_topic}_with_covariance", self._take_covariance, deep
        )
        node.create_subscription(TFMessage, "/tf", self._take_tf, deep)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._take_diagnostics, deep)

    def is_connected(self) -> bool:
        """Whether the node that is to answer is there, and its answers would be heard."""
        names = (f"{space.rstrip('/')}/{name}" for name, space in self._node.get_node_names_and_namespaces())
        return self._node_name in names and self._answers.get_publisher_count() > 0

    def note_image(self, stamp_ns: int) -> None:
        """An image of that stamp is about to be published."""
        self._published_ns.setdefault(stamp_ns, time.time_ns())

    def note_own_transforms(self, message: TFMessage) -> None:
        """Transforms that the replay itself publishes are none of the node's answers."""
        self._own_edges |= {(t.header.frame_id, t.child_frame_id) for t in message.transforms}

    def wait_for_answer(self, stamp_ns: int, timeout_s: float) -> bool:
        """Until the node has published a pose for the image of that stamp, or said that it is done with it."""
        with self._changed:
            return self._changed.wait_for(lambda: stamp_ns in self._answered, timeout_s)

    def wait_for_stragglers(self, quiet_s: float) -> None:
        """Until every image is answered or no answer has come for a while, and the diagnostics tell of the last."""
        with self._changed:
            while self.unanswered():
                before = len(self._answered)
                if not self._changed.wait_for(lambda: len(self._answered) > before, quiet_s):  # noqa: B023
                    break
            self._changed.wait_for(self._is_summed_up, quiet_s)

    def unanswered(self) -> list[int]:
        """Stamps of images without an answer; at the pace of the recording, those that gave way to newer ones."""
        return sorted(set(self._published_ns) - self._answered)

    def _is_summed_up(self) -> bool:
        last = max(self._answered & set(self._published_ns), default=None)
        return last is None or self._diagnostics.get("values", {}).get(PROCESSED) == seconds(last)

    def asdict(self) -> dict[str, Any]:
        arrivals = [(p["stamp_ns"], p["arrival_ns"]) for p in self._poses]
        latencies_ms = [
            (arrival - self._published_ns[stamp]) / 1e6 for stamp, arrival in arrivals if stamp in self._published_ns
        ]
        return {
            "images": [{"stamp_ns": s, "publish_ns": p} for s, p in sorted(self._published_ns.items())],
            "unanswered": self.unanswered(),
            "poses": self._poses,
            "poses_with_covariance": self._covariances,
            "transforms": [t for t in self._transforms if (t["parent"], t["child"]) not in self._own_edges],
            "latency_ms": {
                f"p{q}": round(float(np.percentile(latencies_ms, q)), 2) if latencies_ms else None for q in (50, 95)
            },
            "diagnostics": self._diagnostics,
        }

    def _take_pose(self, message: PoseStamped) -> None:
        entry = _entry(message.header, message.pose.position, message.pose.orientation)
        with self._changed:
            self._poses.append(entry)
            self._answered.add(entry["stamp_ns"])
            self._changed.notify_all()

    def _take_covariance(self, message: PoseWithCovarianceStamped) -> None:
        pose = message.pose.pose
        entry = _entry(message.header, pose.position, pose.orientation)
        self._covariances.append({**entry, "covariance": message.pose.covariance.tolist()})

    def _take_tf(self, message: TFMessage) -> None:
        for t in message.transforms:
            entry = _entry(t.header, t.transform.translation, t.transform.rotation)
            parent = entry.pop("frame_id")
            self._transforms.append({**entry, "parent": parent, "child": t.child_frame_id})

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id != self._node_name:
                continue
            values = {pair.key: pair.value for pair in status.values}
            with self._changed:
                self._diagnostics = {"level": status.level[0], "message": status.message, "values": values}
                processed = values.get(PROCESSED, "")
                self._answered |= {stamp for stamp in self._published_ns if seconds(stamp) == processed}
                self._changed.notify_all()


def _entry(header: Any, position: Any, orientation: Any) -> dict[str, Any]:
    return {
        "stamp_ns": stamp_to_ns(header.stamp),
        "arrival_ns": time.time_ns(),
        "frame_id": header.frame_id,
        "xyz": [position.x, position.y, position.z],
        "quat_xyzw": [orientation.x, orientation.y, orientation.z, orientation.w],
    }
