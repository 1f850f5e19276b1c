"""The node ``nre_localizer``: images in, poses in the map out.

Its callbacks do three things: convert, hand the newest frame to a worker, publish what comes back. Everything is
published from the executor's thread; the worker touches the localizer and the transform buffer alone.
"""

from __future__ import annotations

import sys
from queue import SimpleQueue
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from sensor_msgs.msg import PointCloud2

from nre_ros.config import LocalizerNodeConfig
from nre_ros.errors import ConfigError
from nre_ros.features import configured_network
from nre_ros.localization import Localizer
from nre_ros.mapping import Map, load_map
from nre_ros.ros.camera_input import CameraInput, Snapshot
from nre_ros.ros.conversions import pose_stamped, pose_with_covariance
from nre_ros.ros.diagnostics import Report, device_memory
from nre_ros.ros.health import LocalizerHealth
from nre_ros.ros.managed_node import ManagedNode, run_node
from nre_ros.ros.query import Answer, Fix, Query
from nre_ros.ros.relocalize import RelocalizeService
from nre_ros.ros.transform_output import TransformOutput
from nre_ros.ros.transforms import Buffer, TransformListener
from nre_ros.ros.visualization import LATCHED, map_points
from nre_ros.ros.worker import Worker

STOP_TIMEOUT_S = 30.0
"""Far longer than any query: a worker that outlives it hangs."""

LOG_PERIOD_S = 5.0
"""Same troubles are logged no more often."""


class LocalizerNode(ManagedNode[LocalizerNodeConfig]):
    """Publishes a pose for every image that is localized, and nothing for the others."""

    task = "localization"

    def __init__(self, **node_options: Any) -> None:
        super().__init__("nre_localizer", LocalizerNodeConfig(), **node_options)
        self._pose = self.create_publisher(PoseStamped, "~/pose", 10)
        self._pose_with_covariance = self.create_publisher(PoseWithCovarianceStamped, "~/pose_with_covariance", LATCHED)
        self._map_points = self.create_publisher(PointCloud2, "~/map_points", LATCHED)
        self._buffer = Buffer(node=self)
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._answered = self.create_guard_condition(self._on_answers)
        self._relocalize = RelocalizeService(
            self,
            timeout_s=lambda: self.config.relocalize_timeout,
            images_so_far=lambda: self._camera.count if self._camera else 0,
            unavailable=lambda: "" if self.state == "active" else f"the node is {self.state}: activate it first",
            explain=lambda: self.report().message,
        )
        self._map: Map | None = None
        self._identity: dict[str, str] = {}
        self._worker: Worker[Snapshot] | None = None
        self._camera: CameraInput | None = None
        self._listener: TransformListener | None = None
        self._transforms: TransformOutput | None = None
        self._health = LocalizerHealth()

    @property
    def config(self) -> LocalizerNodeConfig:
        return self.parameters.current

    def configure(self) -> None:
        config = self.parameters.config
        if not config.map_path:
            raise ConfigError("no map: parameter map_path is empty; set it to a folder that nre_ros build-map wrote")
        network = configured_network(config.localizer)
        self._map = map_ = load_map(config.map_path, network)
        query = Query(lambda chosen: Localizer(map_, network, chosen), self._buffer, lambda: self.config)
        query.warm_up(map_.cameras[0])
        self._identity = {"map": config.map_path, "map hash": map_.digest, "weights hash": map_.network_hash}
        self._worker = Worker(
            lambda image: self._hand_back(query.answer(image)),
            shortest_period=self._shortest_period_s,
            name="localizer",
        )

    def activate(self) -> None:
        assert self._map is not None
        self._health = LocalizerHealth()
        self._transforms = TransformOutput(self, lambda: self.config)
        self._listener = TransformListener(self._buffer, self)
        self._camera = CameraInput(self, self._on_image)
        now_ns = self.get_clock().now().nanoseconds
        self._map_points.publish(map_points(self._map, self.config.global_frame_id, now_ns))

    def deactivate(self) -> None:
        if self._camera:
            self._camera.close()
        if self._listener:
            self._listener.unregister()
        if self._transforms:
            self._transforms.close()
        if self._worker:
            self._worker.clear()
        self._camera = self._listener = self._transforms = None
        self._relocalize.cancel("the node was deactivated")

    def release(self) -> None:
        if self._worker and not self._worker.stop(STOP_TIMEOUT_S):
            self.get_logger().error(f"the localizer did not end within {STOP_TIMEOUT_S:g} s")
        self._worker = self._map = None

    def report(self) -> Report:
        assert self._camera and self._worker
        health = self._health.report(self._camera, self.config)
        values = {
            **health.values,
            "dropped frames": str(self._worker.dropped),
            "device memory": device_memory(self.config.localizer.device),
            **self._identity,
        }
        return Report(health.level, health.message, values)

    def _on_image(self, image: Snapshot) -> None:
        if self._worker:
            self._worker.offer(image)

    def _hand_back(self, answer: Answer) -> None:
        """In the worker's thread."""
        self._answers.put(answer)
        self._answered.trigger()

    def _on_answers(self) -> None:
        while not self._answers.empty():
            answer = self._answers.get()
            if self.state == "active" and answer.image.received_s >= self._health.started_s:
                self._take(answer)

    def _take(self, answer: Answer) -> None:
        if answer.fix:
            self._publish(answer.image, answer.fix)
        self._health.note(answer)
        self._relocalize.tell(answer)
        if answer.reason or (answer.fix and answer.fix.link_trouble):
            self.get_logger().warning(self.report().message, throttle_duration_sec=LOG_PERIOD_S)
            self.publish_diagnostics_soon()
        if answer.bug:
            self.get_logger().error(answer.bug, throttle_duration_sec=LOG_PERIOD_S)

    def _publish(self, image: Snapshot, fix: Fix) -> None:
        frame_id = self.config.global_frame_id
        self._pose.publish(pose_stamped(fix.map_from_out, frame_id, image.stamp_ns))
        self._pose_with_covariance.publish(
            pose_with_covariance(fix.map_from_out, fix.covariance, frame_id, image.stamp_ns)
        )
        if fix.link and self._transforms:
            self._transforms.publish(fix.link, image.stamp_ns)

    def _shortest_period_s(self) -> float:
        rate = self.config.rate_limit
        return 1.0 / rate if rate > 0 else 0.0


def main(args: list[str] | None = None) -> int:
    return run_node(LocalizerNode, args)


if __name__ == "__main__":
    sys.exit(main())
