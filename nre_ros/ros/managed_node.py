"""What both nodes share: a lifecycle whose failures can be retried, autostart, diagnostics, an orderly end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer

from nre_ros.config import BuilderNodeConfig, LocalizerNodeConfig
from nre_ros.errors import NreError
from nre_ros.ros.diagnostics import Level, Report, status_message
from nre_ros.ros.parameters import NodeParameters

Config = TypeVar("Config", LocalizerNodeConfig, BuilderNodeConfig)
DIAGNOSTICS_PERIOD_S = 1.0
SOONEST_S = 0.1
"""Troubles are told at once, but no more often than this: a bad camera fails thirty times a second."""


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ManagedNode(LifecycleNode, Generic[Config]):
    """A lifecycle node made of four steps that a subclass fills in, each undoing what its counterpart did.

    A step that raises is a failed transition: the reason is logged and told in /diagnostics, what it had set up is
    released, and it can be asked for again.
    """

    task: str
    """What the node does, in a word; part of its name in /diagnostics."""

    def __init__(self, name: str, defaults: Config, **node_options: Any) -> None:
        super().__init__(name, **node_options)
        self.state = "unconfigured"
        self._fault = ""
        self._answer_impossible_transitions()
        self.parameters: NodeParameters[Config] = NodeParameters(
            self, defaults, is_configured=lambda: self.state != "unconfigured"
        )
        # The steady clock: with use_sim_time and no /clock, diagnostics are what tells the user so.
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self.publish_diagnostics, clock=self.steady_clock)
        self._last_diagnostics_s = 0.0
        self._soon: Timer | None = None
        if self.parameters.current.autostart:
            self.after(0.0, self._start)

    def configure(self) -> None:
        """Load what the node needs."""
        raise NotImplementedError

    def activate(self) -> None:
        """Begin to take input."""
        raise NotImplementedError

    def deactivate(self) -> None:
        """Stop all output at once."""
        raise NotImplementedError

    def release(self) -> None:
        """Free what :meth:`configure` loaded, also when it got only half way."""
        raise NotImplementedError

    def report(self) -> Report:
        """The node's health while it is active."""
        raise NotImplementedError

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("configure", self.configure, then="inactive", undo=self.release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("activate", self.activate, then="active", undo=self.deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("deactivate", self.deactivate, then="inactive", undo=None)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("cleanup", self.release, then="unconfigured", undo=None)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step("shutdown", self.shut_down, then="finalized", undo=None)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that could not be undone: whatever can be freed is, and configuring may be tried again."""
        try:
            self.shut_down()
        except Exception:
            self.get_logger().error(traceback.format_exc())
        self.state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def shut_down(self) -> None:
        """Stop and free whatever runs; safe in every state."""
        if self.state == "active":
            self.deactivate()
        self.release()
        self.state = "unconfigured"

    def destroy_node(self) -> None:
        self.shut_down()
        super().destroy_node()

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call once, from the executor."""

        def fire() -> None:
            self.destroy_timer(timer)
            callback()

        timer: Timer = self.create_timer(delay_s, fire, clock=self.steady_clock)
        return timer

    def publish_diagnostics_soon(self) -> None:
        """Besides the regular ones, when something has just happened that others should know."""
        if self._soon is None:
            wait_s = self._last_diagnostics_s + SOONEST_S - time.monotonic()
            self._soon = self.after(max(wait_s, 0.0), self.publish_diagnostics)

    def publish_diagnostics(self) -> None:
        self._last_diagnostics_s, self._soon = time.monotonic(), None
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [self._status()]
        self._diagnostics.publish(message)

    def _status(self) -> DiagnosticStatus:
        if self._fault:
            report = Report(Level.ERROR, self._fault, {})
        elif self.state == "active":
            report = self.report()
        else:
            report = Report(Level.WARN, _IDLE[self.state], {})
        return status_message(f"{self.get_name()}: {self.task}", self.get_fully_qualified_name(), self.state, report)

    def _start(self) -> None:
        """What ``autostart`` asks for; a failure leaves the node where a person can retry."""
        if self.state == "unconfigured" and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _step(
        self, name: str, run: Callable[[], None], *, then: str, undo: Callable[[], None] | None
    ) -> TransitionCallbackReturn:
        """Run a transition; one that fails is undone, or goes to :meth:`on_error` when there is no undoing it."""
        try:
            run()
        except Exception as error:
            self._fault = f"{name} failed: {error}"
            self.get_logger().error(self._fault if isinstance(error, NreError) else traceback.format_exc())
            if undo is not None:
                undo()
            self.publish_diagnostics()
            return TransitionCallbackReturn.ERROR if undo is None else TransitionCallbackReturn.FAILURE
        self._fault = ""
        self.state = then
        self.get_logger().info(f"{name} done: {then}")
        self.publish_diagnostics()
        return TransitionCallbackReturn.SUCCESS

    def _answer_impossible_transitions(self) -> None:
        """rclpy raises for a transition that the state does not have, and whoever asked would wait for ever."""
        service = self._service_change_state
        serve = service.callback

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return serve(request, response)
            except RCLError:
                asked = request.transition.label or request.transition.id
                self.get_logger().warning(f"transition {asked} is refused: the node is {self.state}")
                response.success = False
                return response

        service.callback = answer


_IDLE = {
    "unconfigured": "waits for its configure transition",
    "inactive": "waits for its activate transition",
    "finalized": "shut down",
}


def run_node(make_node: Callable[[], ManagedNode[Any]], args: list[str] | None = None) -> int:
    """Spin a node until SIGINT or SIGTERM, then take it down in order. Returns the exit code. For the main thread.

    A second signal cannot interrupt the teardown, and no callback is torn apart by a KeyboardInterrupt. An exception
    in a callback is logged and the node goes on.
    """
    stop = threading.Event()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()

    def end() -> None:
        stop.set()
        executor.create_task(lambda: None)  # work that ends the wait of spin_once

    _at_first_signal(end)
    try:
        node = make_node()
        executor.add_node(node)
        with contextlib.suppress(ExternalShutdownException):
            while not stop.is_set():
                _spin_once(executor, node)
        for number in ENDING_SIGNALS:  # ignored to the very end: Python's shutdown resets handlers, but not this
            signal.signal(number, signal.SIG_IGN)
        node.destroy_node()
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    return 0


def _at_first_signal(callback: Callable[[], None]) -> None:
    """Call from a thread when SIGINT or SIGTERM comes; further ones do nothing until the handlers are changed.

    Python's own handlers run in the main thread, which waits in C inside spin_once; the wake-up descriptor is written
    at once, whichever thread the signal hits.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait() -> None:
        os.read(reader, 1)
        callback()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _spin_once(executor: SingleThreadedExecutor, node: ManagedNode[Any]) -> None:
    try:
        executor.spin_once()
    except ExternalShutdownException:
        raise
    except Exception:
        node.get_logger().error(f"a callback failed, the node goes on:\n{traceback.format_exc()}")
