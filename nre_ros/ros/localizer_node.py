"""The node ``nre_localizer``: images in, poses in the map out.

Its callbacks do three things: convert, hand the newest frame to a worker, publish what comes back. Everything is
published from the executor's thread; the worker touches the localizer and the transform buffer alone.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from std_srvs.srv import Empty

from nre_ros.config import LocalizerConfig, LocalizerNodeConfig
from nre_ros.errors import ConfigError, MapError
from nre_ros.features import FeatureNetwork, configured_network
from nre_ros.localization import Localizer
from nre_ros.localization.calibration import load_calibration
from nre_ros.mapping import Map, load_map
from nre_ros.ros.camera_input import CameraInput, Snapshot
from nre_ros.ros.conversions import pose_stamped, pose_with_covariance
from nre_ros.ros.diagnostics import Report, device_memory
from nre_ros.ros.display import Display
from nre_ros.ros.health import LocalizerHealth
from nre_ros.ros.initial_pose import InitialPoseError, initial_pose_from_message
from nre_ros.ros.load_map import LoadMapService
from nre_ros.ros.managed_node import ManagedNode, run_node
from nre_ros.ros.qos_watch import QosWatch
from nre_ros.ros.query import Answer, Fix, Query
from nre_ros.ros.relocalize import RelocalizeService
from nre_ros.ros.transform_output import TransformOutput
from nre_ros.ros.transforms import Buffer, TransformListener
from nre_ros.ros.visualization import LATCHED
from nre_ros.ros.worker import Worker

STOP_TIMEOUT_S = 30.0
"""Far longer than any query: a worker that outlives it hangs."""

LOG_PERIOD_S = 5.0
"""Same troubles are logged no more often."""


@dataclass(frozen=True)
class Place:
    """A map in use, from the folder ``path``, with the network it was made by."""

    path: str
    map: Map
    network: FeatureNetwork

    def localizer(self, config: LocalizerConfig) -> Localizer:
        return Localizer(self.map, self.network, config)

    @property
    def identity(self) -> dict[str, str]:
        return {"map": self.path, "map hash": self.map.digest, "weights hash": self.map.network_hash}


class LocalizerNode(ManagedNode[LocalizerNodeConfig]):
    """Publishes a pose for every image that is localized, and nothing for the others."""

    task = "localization"

    def __init__(self, **node_options: Any) -> None:
        super().__init__("nre_localizer", LocalizerNodeConfig(), **node_options)
        self._watch = QosWatch(self)
        self._pose = self._publisher(PoseStamped, "~/pose", 10)
        self._pose_with_covariance = self._publisher(PoseWithCovarianceStamped, "~/pose_with_covariance", LATCHED)
        self._display = Display(self, self._watch)
        self._buffer = Buffer(node=self)
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._answered = self.create_guard_condition(self._on_answers)
        self._relocalize = RelocalizeService(
            self,
            timeout_s=lambda: self.config.relocalize_timeout,
            images_so_far=lambda: self._camera.count if self._camera else 0,
            unavailable=lambda: "" if self.state == "active" else f"the node is {self.state}: activate it first",
            explain=lambda: self.report().message,
            forget=self._forget,
        )
        self._load_map = LoadMapService(
            self,
            unavailable=lambda: "" if self._query else f"the node is {self.state}: configure it, which loads the map",
            load=self._load,
            adopt=self._adopt,
        )
        self.create_service(Empty, "reinitialize_global_localization", self._serve_reinitialize)
        self._place: Place | None = None
        self._query: Query | None = None
        self._worker: Worker[Snapshot] | None = None
        self._camera: CameraInput | None = None
        self._initial_pose: Subscription | None = None
        self._listener: TransformListener | None = None
        self._transforms: TransformOutput | None = None
        self._health = LocalizerHealth()

    @property
    def config(self) -> LocalizerNodeConfig:
        return self.parameters.current

    def configure(self) -> None:
        config = self.parameters.config
        if config.threads:
            torch.set_num_threads(config.threads)
        self._place = place = _open_place(config.map_path, configured_network(config.localizer))
        self._query = query = Query(
            place.localizer, self._buffer, lambda: self.config, lambda: self._display.wants_image
        )
        query.warm_up(place.map.cameras[0])
        remark = load_calibration(config.localizer.accept.calibration).remark(place.network.weights_hash)
        if remark:
            self.get_logger().warning(remark)
        self._worker = Worker(
            lambda image: self._hand_back(query.answer(image)),
            shortest_period=self._shortest_period_s,
            name="localizer",
        )

    def activate(self) -> None:
        assert self._place and self._query
        self._query.forget()
        self._health = LocalizerHealth()
        self._transforms = TransformOutput(self, lambda: self.config)
        self._listener = TransformListener(self._buffer, self)
        self._initial_pose = self.create_subscription(
            PoseWithCovarianceStamped,
            "initialpose",
            self._on_initial_pose,
            1,
            event_callbacks=self._watch.subscription("initialpose"),
        )
        self._camera = CameraInput(self, self._on_image, watch=self._watch)
        self._display.show_map(self._place.map, self.config.global_frame_id)

    def deactivate(self) -> None:
        if self._camera:
            self._camera.close()
        if self._initial_pose:
            self.destroy_subscription(self._initial_pose)
        if self._listener:
            self._listener.unregister()
        if self._transforms:
            self._transforms.close()
        if self._worker:
            self._worker.clear()
        self._camera = self._initial_pose = self._listener = self._transforms = None
        self._relocalize.cancel("the node was deactivated")

    def release(self) -> None:
        if self._worker and not self._worker.stop(STOP_TIMEOUT_S):
            self.get_logger().error(f"the localizer did not end within {STOP_TIMEOUT_S:g} s")
        self._worker = self._query = self._place = None

    def report(self) -> Report:
        assert self._camera and self._worker and self._place
        health = self._health.report(self._camera, self.config)
        values = {
            **health.values,
            "dropped frames": str(self._worker.dropped),
            "device memory": device_memory(self.config.localizer.device),
            "incompatible QoS": self._watch.summary,
            **self._place.identity,
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
        frame_id, stamp_ns = self.config.global_frame_id, answer.image.stamp_ns
        if answer.fix:
            self._publish(answer.image, answer.fix)
        self._display.show_hypotheses(answer.rivals, frame_id, stamp_ns)
        if answer.picture is not None:
            self._display.show_image(answer.picture, answer.image.frame_id, stamp_ns)
        self._health.note(answer)
        self._relocalize.tell(answer)
        if answer.reason or (answer.fix and answer.fix.link_trouble):
            self.get_logger().warning(self.report().message, throttle_duration_sec=LOG_PERIOD_S)
            self.publish_diagnostics_soon()
        if answer.bug:
            self.get_logger().error(answer.bug, throttle_duration_sec=LOG_PERIOD_S)

    def _publish(self, image: Snapshot, fix: Fix) -> None:
        frame_id = self.config.global_frame_id
        pose = pose_stamped(fix.map_from_out, frame_id, image.stamp_ns)
        self._pose.publish(pose)
        self._display.show_pose(pose, image.stamp_ns)
        self._pose_with_covariance.publish(
            pose_with_covariance(fix.map_from_out, fix.covariance, frame_id, image.stamp_ns)
        )
        if fix.link and self._transforms:
            self._transforms.publish(fix.link, image.stamp_ns)

    def _on_initial_pose(self, message: PoseWithCovarianceStamped) -> None:
        try:
            given = initial_pose_from_message(message, self.config.global_frame_id)
        except InitialPoseError as error:
            self.get_logger().error(f"initialpose is refused: {error}")
            return
        if self._query:
            self._query.expect(given)
        x, y, z = given.map_from_base.translation.tolist()
        self.get_logger().info(
            f"initialpose: the next pose is looked for around {x:.2f} {y:.2f} {z:.2f}, "
            f"{given.position:.2f} m, {math.degrees(given.rotation_rad):.0f} deg (one standard deviation)"
        )

    def _serve_reinitialize(self, request: Empty.Request, response: Empty.Response) -> Empty.Response:
        self._forget()
        self.get_logger().info("the next pose is looked for in the whole map")
        return response

    def _forget(self) -> None:
        if self._query:
            self._query.forget()

    def _load(self) -> tuple[Query, Place, Localizer]:
        """In the loader's thread; with the query that is to take the map: the node may be configured anew by then."""
        query, place = self._query, self._place
        if query is None or place is None:
            raise MapError("the node was cleaned up")
        fresh = _open_place(self.config.map_path, place.network)
        return query, fresh, fresh.localizer(self.config.localizer)

    def _adopt(self, loaded: tuple[Query, Place, Localizer]) -> str:
        query, place, localizer = loaded
        if query is not self._query:
            raise MapError("the node was configured anew while the map was being loaded")
        query.replace_map(place.localizer, localizer)
        self._place = place
        if self.state == "active":
            self._display.show_map(place.map, self.config.global_frame_id)
        m = place.map
        return f"{place.path}: {m.keyframe_count} keyframes, {m.landmark_count} landmarks, hash {m.digest[:12]}"

    def _publisher(self, kind: type, topic: str, qos: QoSProfile | int) -> Any:
        return self.create_publisher(kind, topic, qos, event_callbacks=self._watch.publisher(topic))

    def _shortest_period_s(self) -> float:
        rate = self.config.rate_limit
        return 1.0 / rate if rate > 0 else 0.0


def _open_place(path: str, network: FeatureNetwork) -> Place:
    if not path:
        raise ConfigError("no map: parameter map_path is empty; set it to a folder that nre_ros build-map wrote")
    return Place(path, load_map(path, network), network)


def main(args: list[str] | None = None) -> int:
    return run_node(LocalizerNode, args)


if __name__ == "__main__":
    sys.exit(main())
