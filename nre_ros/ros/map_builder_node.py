"""The node ``nre_map_builder``: images with poses in, a map file out.

As in the localizer node, callbacks hand frames to a worker and publish what comes back; building and saving happen in
the worker too, so that a frame and a building never meet in the builder.
"""

from __future__ import annotations

import sys
from queue import SimpleQueue
from typing import Any

import torch
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from nre_ros.config import BuilderNodeConfig
from nre_ros.features import configured_network
from nre_ros.mapping import MapBuilder
from nre_ros.ros.builder_health import BuilderHealth
from nre_ros.ros.camera_input import CameraInput, Snapshot
from nre_ros.ros.collection import Collection, FrameOutcome, SaveOutcome, Shot, Use
from nre_ros.ros.depth_input import DepthInput
from nre_ros.ros.diagnostics import Report
from nre_ros.ros.managed_node import ManagedNode, run_node
from nre_ros.ros.pose_input import REMEMBERED, PoseInput
from nre_ros.ros.transforms import Buffer
from nre_ros.ros.visualization import LATCHED, keyframe_markers, map_points
from nre_ros.ros.worker import Worker

STOP_TIMEOUT_S = 60.0
"""Longer than a step of the building, between two looks at whether it was cancelled."""

LOG_PERIOD_S = 5.0
"""Same troubles are logged no more often."""


class MapBuilderNode(ManagedNode[BuilderNodeConfig]):
    """Collects from its activation on; ``~/stop`` and ``~/start`` pause and resume, ``~/save_map`` writes."""

    task = "mapping"

    def __init__(self, **node_options: Any) -> None:
        super().__init__("nre_map_builder", BuilderNodeConfig(), **node_options)
        self._map_points = self.create_publisher(PointCloud2, "~/map_points", LATCHED)
        self._keyframes = self.create_publisher(MarkerArray, "~/keyframes", LATCHED)
        self._buffer = Buffer(REMEMBERED, node=self)
        self._outcomes: SimpleQueue[FrameOutcome | SaveOutcome] = SimpleQueue()
        self._arrived = self.create_guard_condition(self._on_outcomes)
        self.create_service(Trigger, "~/start", self._serve_start)
        self.create_service(Trigger, "~/stop", self._serve_stop)
        # A group of its own: the coroutine waits in it, and everything else in its group would wait with it.
        self.create_service(Trigger, "~/save_map", self._serve_save, callback_group=ReentrantCallbackGroup())
        self._collection: Collection | None = None
        self._worker: Worker[Shot | str] | None = None
        self._camera: CameraInput | None = None
        self._depth: DepthInput | None = None
        self._poses: PoseInput | None = None
        self._saving: Future | None = None
        self._collecting = False
        self._health = BuilderHealth()

    @property
    def config(self) -> BuilderNodeConfig:
        return self.parameters.current

    def configure(self) -> None:
        config = self.parameters.config
        network = configured_network(config.builder)
        builder = MapBuilder(network, config.builder, frame_id=config.global_frame_id, unit="metre")
        collection = Collection(builder, config.tf_timeout)
        self._collection = collection
        self._health = BuilderHealth()
        self._worker = Worker(
            lambda job: self._hand_back(collection.save(job) if isinstance(job, str) else collection.add(job)),
            depth=config.queue_size,
            name="map builder",
        )

    def activate(self) -> None:
        config = self.config
        self._poses = PoseInput(self, self._buffer, config)
        self._depth = DepthInput(self, config.queue_size)
        self._camera = CameraInput(self, self._on_image, depth=config.queue_size)
        self._collecting = True

    def deactivate(self) -> None:
        for source in (self._camera, self._depth, self._poses):
            if source:
                source.close()
        self._camera = self._depth = self._poses = None
        self._collecting = False

    def release(self) -> None:
        if self._collection:
            self._collection.cancel()
        if self._worker and not self._worker.stop(STOP_TIMEOUT_S):
            self.get_logger().error(f"the map builder did not end within {STOP_TIMEOUT_S:g} s")
        self._finish_saving(SaveOutcome(None, "no map was saved: the node was cleaned up"))
        self._worker = self._collection = None

    def report(self) -> Report:
        assert self._camera and self._poses and self._worker and self._collection
        return self._health.report(
            self._camera,
            stale_timeout_s=self.config.stale_timeout,
            pose_source=self._poses.source,
            collecting=self._collecting,
            progress=self._collection.progress if self._saving else "",
            dropped=self._worker.dropped,
        )

    def _on_image(self, image: Snapshot) -> None:
        if self._collecting and not self._saving and self._worker and self._poses and self._depth:
            self._worker.offer(Shot(image, self._poses, self._depth))

    def _hand_back(self, outcome: FrameOutcome | SaveOutcome) -> None:
        """In the worker's thread."""
        self._outcomes.put(outcome)
        self._arrived.trigger()

    def _on_outcomes(self) -> None:
        while not self._outcomes.empty():
            outcome = self._outcomes.get()
            if isinstance(outcome, SaveOutcome):
                self._finish_saving(outcome)
                continue
            self._health.note(outcome)
            if outcome.use in (Use.NO_POSE, Use.REFUSED):
                self.get_logger().warning(f"{outcome.use.value}: {outcome.reason}", throttle_duration_sec=LOG_PERIOD_S)
            self.publish_diagnostics_soon()

    def _serve_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._collecting = self.state == "active"
        response.message = "collecting" if response.success else f"the node is {self.state}: activate it first"
        return response

    def _serve_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._collecting = False
        response.success, response.message = True, f"stopped with {self._health.keyframes} keyframes"
        return response

    async def _serve_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = False
        if not self._worker:
            response.message = f"no map was saved: the node is {self.state}: configure it first"
        elif not self.config.map_path:
            response.message = "no map was saved: parameter map_path is empty; set it to the folder to write"
        elif self._saving:
            response.message = "no map was saved: a building is already under way"
        else:
            self._saving = Future()
            self._worker.offer(self.config.map_path)
            response.success, response.message = await self._saving
        return response

    def _finish_saving(self, outcome: SaveOutcome) -> None:
        if outcome.map:
            self.get_logger().info(outcome.text)
            now_ns, frame_id = self.get_clock().now().nanoseconds, self.config.global_frame_id
            self._map_points.publish(map_points(outcome.map, frame_id, now_ns))
            keyframes = outcome.map.map_from_keyframe.to(torch.float64)
            self._keyframes.publish(keyframe_markers(keyframes, frame_id, now_ns))
        elif self._saving:
            self.get_logger().error(outcome.text)
        if self._saving:
            self._saving.set_result((outcome.map is not None, outcome.text))
            self._saving = None


def main(args: list[str] | None = None) -> int:
    return run_node(MapBuilderNode, args)


if __name__ == "__main__":
    sys.exit(main())
