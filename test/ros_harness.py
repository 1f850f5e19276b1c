"""ROS for tests: a domain of its own, nodes spun in a thread, and waiting that always ends."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402

TIMEOUT_S = 20.0


class Ros:
    """The test's own node, and whatever nodes it adds, spun together."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.node = Node("test_client")
        self.failures: list[BaseException] = []
        self._added: list[Node] = [self.node]
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self.diagnostics: list[Any] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.extend(m.status), 100)

    def add(self, node: Node) -> Node:
        self._added.append(node)
        self.executor.add_node(node)
        return node

    def collect(self, kind: type, topic: str, qos: Any = 100) -> list[Any]:
        """A list that fills with what is published there."""
        received: list[Any] = []
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def publisher(self, kind: type, topic: str, qos: Any = 10, subscribers: int = 1) -> Any:
        """Matched before it is returned."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.wait(lambda: publisher.get_subscription_count() >= subscribers, f"a subscription to {topic}")
        return publisher

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s; {self.failures}"
            time.sleep(0.005)
        return result

    def do(self, action: Callable[[], Any]) -> Any:
        """Run in the executor's thread, as callbacks are."""
        task = self.executor.create_task(action)
        self.wait(task.done, "end of the action")
        return task.result()

    def call(self, kind: type, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        self.wait(client.service_is_ready, f"service {service}")
        future = client.call_async(request)
        self.wait(future.done, f"answer of {service}")
        self.node.destroy_client(client)
        return future.result()

    def told(self, text: str) -> Any:
        """Wait for a diagnostic whose message contains the text."""
        return self.wait(lambda: [s for s in self.diagnostics if text in s.message], f"diagnostic with {text!r}")[-1]

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join(TIMEOUT_S)
        for node in self._added:
            node.destroy_node()
        self._added.clear()

    def _spin(self) -> None:
        while not self.executor._is_shutdown:
            try:
                self.executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                return
            except Exception as error:
                self.failures.append(error)


@contextmanager
def ros() -> Iterator[Ros]:
    """A fresh context; fails the test when a callback raised."""
    rclpy.init(args=[])
    harness = Ros()
    try:
        yield harness
        assert not harness.failures, harness.failures
    finally:
        harness.close()
        rclpy.try_shutdown()
        # Lifecycle nodes are cyclic; each that lingers keeps a DDS participant, and after some thirty of them
        # new ones get ports on which other processes do not look for them.
        gc.collect()
