"""The hand-over between callbacks and the thread that does the work."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
from nre_ros.ros.worker import Worker


class Handler:
    """Records what it is given; keeps the worker busy until ``open`` is set."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.begun_s: list[float] = []
        self.open = threading.Event()

    def __call__(self, item: int) -> None:
        self.begun.append(item)
        self.begun_s.append(time.monotonic())
        assert self.open.wait(10)


def wait_for(condition, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def handler():
    made = Handler()
    yield made
    made.open.set()


def test_the_newest_item_wins_and_the_others_are_counted(handler):
    worker = Worker(handler)
    worker.offer(0)
    wait_for(lambda: handler.begun == [0])
    for item in (1, 2, 3):
        worker.offer(item)
    handler.open.set()
    wait_for(lambda: len(handler.begun) == 2)
    assert handler.begun == [0, 3]
    assert worker.dropped == 2
    assert worker.stop(5)


def test_offering_never_waits_for_the_work(handler):
    worker = Worker(handler)
    started_s = time.monotonic()
    for item in range(1000):
        worker.offer(item)
    assert time.monotonic() - started_s < 1.0
    assert not handler.open.is_set()
    handler.open.set()
    assert worker.stop(5)


def test_a_deeper_queue_keeps_order_and_drops_the_oldest(handler):
    worker = Worker(handler, depth=3)
    worker.offer(0)
    wait_for(lambda: handler.begun == [0])
    for item in range(1, 6):
        worker.offer(item)
    handler.open.set()
    wait_for(lambda: len(handler.begun) == 4)
    assert handler.begun == [0, 3, 4, 5]
    assert worker.dropped == 2
    assert worker.stop(5)


def test_stopping_finishes_the_item_at_hand_and_forgets_the_rest(handler):
    worker = Worker(handler, depth=3)
    for item in range(3):
        worker.offer(item)
    wait_for(lambda: bool(handler.begun))
    assert not worker.stop(0.05), "the item at hand is still being worked on"
    handler.open.set()
    assert worker.stop(5)
    assert handler.begun == [0]


def test_cleared_items_are_not_worked_on(handler):
    worker = Worker(handler)
    worker.offer(0)
    wait_for(lambda: handler.begun == [0])
    worker.offer(1)
    worker.clear()
    worker.offer(2)
    handler.open.set()
    wait_for(lambda: len(handler.begun) == 2)
    assert handler.begun == [0, 2]
    assert worker.stop(5)


def test_the_shortest_period_spaces_the_starts_and_takes_the_newest_after_it(handler):
    handler.open.set()
    worker = Worker(handler, shortest_period=lambda: 0.2)
    worker.offer(0)
    wait_for(lambda: handler.begun == [0])
    worker.offer(1)
    worker.offer(2)
    wait_for(lambda: len(handler.begun) == 2)
    assert handler.begun == [0, 2]
    assert handler.begun_s[1] - handler.begun_s[0] >= 0.19
    worker.offer(3)
    assert worker.stop(0.15), "stopping does not wait for the period"
