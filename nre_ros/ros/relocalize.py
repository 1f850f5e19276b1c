"""The service ~/relocalize: an honest answer, after the attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_srvs.srv import Trigger

from nre_ros.ros.managed_node import ManagedNode
from nre_ros.ros.query import Answer

Result = tuple[bool, str]


class RelocalizeService:
    """Each call is answered by the first image that arrived after it, or when the timeout is over.

    ``images_so_far`` tells the number of the newest image; ``unavailable`` why no attempt can be made, empty when it
    can; ``explain`` what the node lacks, for the timeout's answer. ``forget`` makes the attempt independent of those
    before.
    """

    def __init__(
        self,
        node: ManagedNode[Any],
        *,
        timeout_s: Callable[[], float],
        images_so_far: Callable[[], int],
        unavailable: Callable[[], str],
        explain: Callable[[], str],
        forget: Callable[[], None],
    ) -> None:
        self._node = node
        self._timeout_s = timeout_s
        self._images_so_far = images_so_far
        self._unavailable = unavailable
        self._explain = explain
        self._forget = forget
        self._waiting: list[tuple[Future, int]] = []
        # A group of its own: the coroutine waits in it, and everything else in its group would wait with it.
        node.create_service(Trigger, "~/relocalize", self._serve, callback_group=ReentrantCallbackGroup())

    def tell(self, answer: Answer) -> None:
        """Give an answer to the calls that were made before its image came."""
        ready = [future for future, after in self._waiting if answer.image.number > after]
        self._finish(ready, (answer.fix is not None, _describe(answer)))

    def cancel(self, reason: str) -> None:
        self._finish([future for future, _ in self._waiting], (False, reason))

    async def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if reason := self._unavailable():
            response.success, response.message = False, reason
            return response
        self._forget()
        future, timeout_s = Future(), self._timeout_s()
        self._waiting.append((future, self._images_so_far()))
        timer = self._node.after(timeout_s, lambda: self._expire(future, timeout_s))
        response.success, response.message = await future
        self._node.destroy_timer(timer)
        return response

    def _expire(self, future: Future, timeout_s: float) -> None:
        self._finish([future], (False, f"no attempt within {timeout_s:g} s: {self._explain()}"))

    def _finish(self, futures: list[Future], result: Result) -> None:
        self._waiting = [pair for pair in self._waiting if pair[0] not in futures]
        for future in futures:
            if not future.done():
                future.set_result(result)


def _describe(answer: Answer) -> str:
    if answer.fix is None or answer.localization is None:
        return answer.reason
    xyz = " ".join(f"{v:.3f}" for v in answer.fix.map_from_out.translation.tolist())
    quat_xyzw = " ".join(f"{v:.4f}" for v in answer.fix.map_from_out.quat_xyzw().tolist())
    return f"position {xyz}, orientation x y z w {quat_xyzw}, score {answer.localization.score:.2f}"
