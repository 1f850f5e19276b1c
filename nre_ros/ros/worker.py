"""A thread that works on the newest items and lets the older ones go."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Calls ``handle(item)`` in a thread of its own, so that whoever offers items never waits.

    At most ``depth`` items wait; one more and the oldest is dropped and counted. With depth 1 the newest wins.
    ``shortest_period`` (s) is asked anew for every item and spaces out the starts. ``handle`` must not raise: what
    can go wrong belongs into its result.
    """

    def __init__(
        self,
        handle: Callable[[Item], None],
        *,
        depth: int = 1,
        shortest_period: Callable[[], float] = lambda: 0.0,
        name: str = "worker",
    ) -> None:
        self._handle = handle
        self._depth = depth
        self._shortest_period = shortest_period
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Items that gave way to newer ones."""
        return self._dropped

    @property
    def waiting(self) -> int:
        """Items that wait for their turn."""
        return len(self._waiting)

    def offer(self, item: Item) -> None:
        """Hand over an item; returns at once."""
        with self._changed:
            if len(self._waiting) == self._depth:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(item)
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget the items that wait; one being handled is finished."""
        with self._changed:
            self._waiting.clear()

    def stop(self, timeout_s: float) -> bool:
        """Finish the item being handled, forget the others. False if that took longer than the timeout."""
        with self._changed:
            self._stopping = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        earliest = 0.0
        while True:
            with self._changed:
                while not self._stopping and (not self._waiting or time.monotonic() < earliest):
                    self._changed.wait(max(earliest - time.monotonic(), 0.0) if self._waiting else None)
                if self._stopping:
                    return
                item = self._waiting.popleft()
            earliest = time.monotonic() + self._shortest_period()
            self._handle(item)
