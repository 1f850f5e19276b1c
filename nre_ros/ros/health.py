"""How well localization goes, from what became of the latest images."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from nre_ros.config import LocalizerNodeConfig
from nre_ros.geometry.pose_track import seconds
from nre_ros.ros.camera_input import CameraInput
from nre_ros.ros.diagnostics import Level, Report
from nre_ros.ros.query import Answer

REMEMBERED = 100
"""Images that the accept rate and the latencies look back on."""


@dataclass(frozen=True)
class _Outcome:
    accepted: bool
    latency_s: float


class LocalizerHealth:
    """Kept from activation to deactivation."""

    def __init__(self) -> None:
        self._outcomes: deque[_Outcome] = deque(maxlen=REMEMBERED)
        self.started_s = time.monotonic()
        self._last_fix_s: float | None = None
        self._last: Answer | None = None
        self._last_reject = ""
        self._attempts = 0

    def note(self, answer: Answer) -> None:
        """Take in an answer at the moment it is published or dismissed."""
        now_s = time.monotonic()
        accepted = answer.fix is not None
        self._outcomes.append(_Outcome(accepted, now_s - answer.image.received_s))
        self._attempts += 1
        self._last = answer
        if accepted:
            self._last_fix_s = now_s
        else:
            self._last_reject = answer.reason

    def report(self, camera: CameraInput, config: LocalizerNodeConfig) -> Report:
        level, message = self._verdict(camera, config)
        return Report(level, message, self._values())

    def _verdict(self, camera: CameraInput, config: LocalizerNodeConfig) -> tuple[Level, str]:
        """The worst first: a person mends causes before their effects."""
        lost = self._fix_age_s() > config.lost_timeout
        if camera.silence_s > config.stale_timeout:
            return (Level.ERROR if lost or not camera.seen else Level.WARN), camera.missing_images()
        if not camera.seen:
            return Level.WARN, "waits for the first image"
        if trouble := camera.calibration_trouble():
            return Level.ERROR, trouble
        last = self._last
        if last is None:
            return Level.WARN, "works on the first image"
        if last.localization is None:
            return Level.ERROR, f"the last image could not be used: {last.reason}"
        if last.fix is None and last.localization.accepted and not last.held:
            return Level.ERROR, f"localized, but the pose cannot be published: {last.reason}"
        if last.fix is None:
            since = "never localized" if self._last_fix_s is None else f"last fix {self._fix_age_s():.1f} s ago"
            if last.localization.ambiguous and not lost:
                return Level.WARN, f"ambiguous: {last.reason} ({since})"
            return (Level.ERROR, f"lost: {last.reason} ({since})") if lost else (Level.WARN, f"{since}: {last.reason}")
        if last.fix.link_trouble:
            return Level.WARN, f"pose published, but not its transform: {last.fix.link_trouble}"
        median_s = self._latency_s(50)
        if median_s > config.slow_latency:
            return Level.WARN, f"slow: {median_s:.2f} s from image to pose, expected {config.slow_latency:g} s at most"
        return Level.OK, f"localized, score {last.localization.score:.2f}"

    def _fix_age_s(self) -> float:
        """Since the last fix, or since the activation when there was none."""
        return time.monotonic() - (self.started_s if self._last_fix_s is None else self._last_fix_s)

    def _latency_s(self, percentile: float) -> float:
        accepted = [o.latency_s for o in self._outcomes if o.accepted]
        return float(np.percentile(accepted, percentile)) if accepted else 0.0

    def _values(self) -> dict[str, str]:
        rate = np.mean([o.accepted for o in self._outcomes]) if self._outcomes else 0.0
        return {
            "fix age": "never" if self._last_fix_s is None else f"{self._fix_age_s():.2f} s",
            "accept rate": f"{rate:.2f}",
            "attempts": str(self._attempts),
            "last reject reason": self._last_reject,
            "p50 latency": f"{1e3 * self._latency_s(50):.0f} ms",
            "p95 latency": f"{1e3 * self._latency_s(95):.0f} ms",
            "search": "" if self._last is None or not self._last.localization else self._last.localization.search.value,
            "last image stamp processed": "" if self._last is None else seconds(self._last.image.stamp_ns),
        }
