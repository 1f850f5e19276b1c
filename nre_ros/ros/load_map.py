"""The service ~/load_map: another map while the node runs, or the old one and the reason."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from nre_ros.errors import NreError

Loaded = TypeVar("Loaded")


class LoadMapService(Generic[Loaded]):
    """``load`` runs in a thread of its own, since large maps take seconds, and raises NreError for a bad map. ``adopt``
    takes what it returned, in the executor, and describes it; it may refuse by an NreError too."""

    def __init__(
        self,
        node: Node,
        *,
        unavailable: Callable[[], str],
        load: Callable[[], Loaded],
        adopt: Callable[[Loaded], str],
    ) -> None:
        self._node = node
        self._unavailable = unavailable
        self._load = load
        self._adopt = adopt
        self._loading = False
        # A group of its own: the coroutine waits in it, and everything else in its group would wait with it.
        node.create_service(Trigger, "~/load_map", self._serve, callback_group=ReentrantCallbackGroup())

    async def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        reason = self._unavailable() or ("a map is being loaded already" if self._loading else "")
        if reason:
            response.success, response.message = False, reason
            return response
        done: Future = Future(executor=self._node.executor)
        self._loading = True
        threading.Thread(target=self._run, args=(done,), name="map loader", daemon=True).start()
        result = await done
        self._loading = False
        try:
            if isinstance(result, NreError):
                raise result
            response.success, response.message = True, self._adopt(result)
            self._node.get_logger().info(response.message)
        except NreError as error:
            response.success, response.message = False, f"the old map stays in use: {error}"
            self._node.get_logger().error(response.message)
        return response

    def _run(self, done: Future) -> None:
        result: Loaded | NreError
        try:
            result = self._load()
        except NreError as error:
            result = error
        except Exception as error:
            self._node.get_logger().error(traceback.format_exc())
            result = NreError(f"internal error, please report it: {type(error).__name__}: {error}")
        done.set_result(result)
