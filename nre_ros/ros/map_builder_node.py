"""The node ``nre_map_builder``: images with poses in, a map file out.

As in the localizer node, callbacks hand frames to a worker and publish what comes back; building and saving happen in
the worker too, so that a frame and a building never meet in the builder. Every keyframe is in the journal, a folder in
that of the map, before the next frame is looked at: a killed node takes its keyframes up again.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_srvs.srv import Trigger

from nre_ros.config import BuilderNodeConfig
from nre_ros.features import FeatureNetwork, configured_network
from nre_ros.mapping import MapBuilder
from nre_ros.mapping.journal import NAME, KeyframeJournal, OtherSession, count_keyframes, session_facts, set_aside
from nre_ros.ros.builder_health import Activity, BuilderHealth
from nre_ros.ros.camera_input import CameraInput, Snapshot
from nre_ros.ros.collection import Collection, FrameOutcome, SaveOutcome, Shot, Use
from nre_ros.ros.depth_input import DepthInput
from nre_ros.ros.diagnostics import Report
from nre_ros.ros.live_display import LiveDisplay
from nre_ros.ros.managed_node import ManagedNode, run_node
from nre_ros.ros.pose_input import PoseInput
from nre_ros.ros.worker import Worker

STOP_TIMEOUT_S = 4.0
"""For a building to notice that it is cancelled; launch kills a node five seconds after it asked it to end."""

THREAD = "map builder"

LOG_PERIOD_S = 5.0
"""Same troubles are logged no more often."""


class MapBuilderNode(ManagedNode[BuilderNodeConfig]):
    """Collects from its activation on; ``~/stop`` and ``~/start`` pause and resume, ``~/save_map`` writes."""

    task = "mapping"

    def __init__(self, **node_options: Any) -> None:
        super().__init__("nre_map_builder", BuilderNodeConfig(), **node_options)
        self._display = LiveDisplay(self)
        self._outcomes: SimpleQueue[tuple[Collection, FrameOutcome | SaveOutcome]] = SimpleQueue()
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
        journal = self._open_journal(config, network)
        frame_id = config.global_frame_id
        builder = MapBuilder(network, config.builder, frame_id=frame_id, unit="metre", keyframes=journal)
        collection = Collection(
            builder, journal, wait_s=config.tf_timeout, most_in_memory=config.memory_keyframes
        )  # fmt: skip
        self._collection = collection
        self._health = BuilderHealth()
        self._display.restart(frame_id, builder.map_from_keyframe)
        self._worker = Worker(
            lambda job: self._hand_back(
                collection, collection.save(job) if isinstance(job, str) else collection.add(job)
            ),
            depth=config.queue_size,
            name=THREAD,
        )

    def activate(self) -> None:
        config = self.config
        self._poses = PoseInput(self, config)
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
        ended = self._worker is None or self._worker.stop(STOP_TIMEOUT_S)
        if not ended:
            self.get_logger().warning(f"the building goes on after {STOP_TIMEOUT_S:g} s; its map will not be written")
        self._on_outcomes()  # a map that was finished just now
        if self._collection and (lost := self._collection.close()):
            self.get_logger().error(f"{lost} keyframes are lost: they were never written to disk or into a map")
        self._worker = self._collection = None
        self._finish_saving(SaveOutcome(None, "no map was saved: the node was cleaned up"))

    def report(self) -> Report:
        assert self._camera and self._poses and self._worker and self._collection
        activity = Activity(
            collecting=self._collecting,
            progress=(self._collection.progress or "begins") if self._saving else "",
            queue=self._worker.waiting,
            dropped=self._worker.dropped,
            pose_source=self._poses.source,
            stale_timeout_s=self.config.stale_timeout,
        )
        return self._health.report(self._camera, self._collection.journal, activity)

    def _open_journal(self, config: BuilderNodeConfig, network: FeatureNetwork) -> KeyframeJournal:
        log = self.get_logger()
        names = ("global_frame_id", "base_frame_id", "camera_frame_id", "pose_source", "camera_extrinsics")
        source = {name: str(getattr(config, name)) for name in names}
        facts = session_facts(network, config.builder, source="map builder node", **source)
        if not config.map_path:
            log.warning("map_path is empty: keyframes are kept in memory only, and a crash would lose them")
            return KeyframeJournal(None, facts, log.warning)
        folder = Path(config.map_path) / NAME
        if not config.resume and count_keyframes(folder):
            kept = set_aside(folder, log.warning)
            log.warning(f"keyframes of an interrupted session are set aside in {kept}: resume is false")
        try:
            journal = KeyframeJournal(folder, facts, log.warning)
        except OtherSession as error:
            log.warning(f"{error}; they are set aside in {set_aside(folder, log.warning)}")
            journal = KeyframeJournal(folder, facts, log.warning)
        if journal.resumed:
            log.warning(f"found {journal.resumed} keyframes of an interrupted session in {folder}: resumed")
        return journal

    def _on_image(self, image: Snapshot) -> None:
        if not (self._collecting and self._worker and self._poses and self._depth):
            return
        if back_s := self._poses.jump_back_s(image.stamp_ns):
            self._begin_anew(back_s)
        if self._saving:
            self._health.note_missed()
        else:
            self._worker.offer(Shot(image, self._poses, self._depth))

    def _begin_anew(self, back_s: float) -> None:
        """The images' stamps jumped back: nothing from before belongs to what comes now."""
        assert self._worker and self._depth
        self._depth.forget()
        if not self._saving:
            self._worker.clear()
        text = f"the images' stamps jumped back by {back_s:.1f} s: poses are forgotten, keyframes stay"
        self._health.note_jump(text)
        self.get_logger().warning(text)

    def _hand_back(self, collection: Collection, outcome: FrameOutcome | SaveOutcome) -> None:
        """In the worker's thread."""
        self._outcomes.put((collection, outcome))
        self._arrived.trigger()

    def _on_outcomes(self) -> None:
        while not self._outcomes.empty():
            collection, outcome = self._outcomes.get()
            if collection is not self._collection:
                continue  # released meanwhile
            if isinstance(outcome, SaveOutcome):
                self._finish_saving(outcome)
            else:
                self._take_in(collection, outcome)
            self.publish_diagnostics_soon()

    def _take_in(self, collection: Collection, outcome: FrameOutcome) -> None:
        self._health.note(outcome)
        log = self.get_logger()
        if outcome.use in (Use.NO_POSE, Use.REFUSED, Use.PAUSED):
            log.warning(f"{outcome.use.value}: {outcome.reason}", throttle_duration_sec=LOG_PERIOD_S)
        if outcome.map_from_cam is not None and outcome.preview_xyz is not None:
            if len(collection.journal) == 1:
                self._display.restart(self.config.global_frame_id, [])
            self._display.add(outcome.map_from_cam, outcome.preview_xyz)
        if trouble := collection.journal.trouble:
            log.error(trouble, throttle_duration_sec=LOG_PERIOD_S)

    def _serve_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._collecting = self.state == "active"
        response.message = "collecting" if response.success else f"the node is {self.state}: activate it first"
        return response

    def _serve_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._collecting = False
        response.success, response.message = True, f"stopped with {self._keyframe_count} keyframes"
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
            self._saving, missed_before = Future(), self._health.missed
            self._worker.offer(self.config.map_path)
            self.publish_diagnostics_soon()
            response.success, response.message = await self._saving
            if missed := self._health.missed - missed_before:
                response.message += f"; {missed} frames that came meanwhile were not used"
        return response

    def _finish_saving(self, outcome: SaveOutcome) -> None:
        if outcome.map:
            self.get_logger().info(outcome.text)
            self._display.show_map(outcome.map)
        elif self._saving:
            self.get_logger().error(outcome.text)
        if self._saving:
            self._saving.set_result((outcome.map is not None, outcome.text))
            self._saving = None

    @property
    def _keyframe_count(self) -> int:
        return len(self._collection.journal) if self._collection else 0


def main(args: list[str] | None = None) -> int:
    code = run_node(MapBuilderNode, args)
    if any(thread.name == THREAD for thread in threading.enumerate()):
        # A building that has not noticed yet that it is cancelled: C++ threads abort when Python ends beneath them.
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
