"""How well the collecting of a map goes."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass

from nre_ros.geometry.pose_track import seconds
from nre_ros.mapping.journal import KeyframeJournal
from nre_ros.ros.camera_input import CameraInput
from nre_ros.ros.collection import FrameOutcome, Use
from nre_ros.ros.diagnostics import Level, Report, device_memory


@dataclass(frozen=True)
class Activity:
    """What the node is doing at the moment. ``progress`` is empty unless a map is being built."""

    collecting: bool
    progress: str
    queue: int
    dropped: int
    pose_source: str
    stale_timeout_s: float


class BuilderHealth:
    """Kept from configuration to clean-up, as the keyframes are."""

    def __init__(self) -> None:
        self._uses: Counter[Use] = Counter()
        self._last: FrameOutcome | None = None
        self._last_trouble = ""
        self._missed = 0
        self._jumps = 0

    def note(self, outcome: FrameOutcome) -> None:
        self._uses[outcome.use] += 1
        self._last = outcome
        self._last_trouble = outcome.reason or self._last_trouble

    def note_missed(self) -> None:
        """A frame came while a map was being built."""
        self._missed += 1

    def note_jump(self, text: str) -> None:
        """Stamps jumped back."""
        self._jumps += 1
        self._last_trouble = text

    @property
    def missed(self) -> int:
        return self._missed

    def report(self, camera: CameraInput, journal: KeyframeJournal, activity: Activity) -> Report:
        values = {
            "frames": str(self._uses.total()),
            "keyframes": str(len(journal)),
            "keyframes resumed": str(journal.resumed),
            "frames passed over": str(self._uses[Use.PASSED_OVER]),
            "frames without pose": str(self._uses[Use.NO_POSE]),
            "refused frames": str(self._uses[Use.REFUSED]),
            "paused frames": str(self._uses[Use.PAUSED]),
            "dropped frames": str(activity.dropped),
            "frames missed while building": str(self._missed),
            "queue": str(activity.queue),
            "clock jumps": str(self._jumps),
            "keyframes in memory only": f"{journal.waiting} ({journal.bytes_in_memory / 2**20:.0f} MiB)",
            "process memory": device_memory("cpu"),
            "disk free": _disk_free(journal),
            "pose source": activity.pose_source,
            "last trouble": self._last_trouble,
            "last image stamp processed": "" if self._last is None else seconds(self._last.stamp_ns),
        }
        return Report(*self._verdict(camera, journal, activity), values)

    def _verdict(self, camera: CameraInput, journal: KeyframeJournal, activity: Activity) -> tuple[Level, str]:
        """The worst first."""
        if journal.trouble:
            return Level.ERROR, f"{journal.waiting} keyframes wait in memory: {journal.trouble}"
        if activity.progress:
            return Level.OK, f"builds the map: {activity.progress}"
        if not activity.collecting:
            return Level.OK, f"stopped with {len(journal)} keyframes; call start or save_map"
        if camera.silence_s > activity.stale_timeout_s:
            return Level.ERROR, camera.missing_images()
        if not camera.seen:
            return Level.WARN, "waits for the first image"
        if trouble := camera.calibration_trouble():
            return Level.ERROR, trouble
        last = self._last
        if last is not None and last.use is Use.NO_POSE:
            count, source = self._uses[Use.NO_POSE], activity.pose_source
            return Level.ERROR, f"no pose for the last image from {source} ({count} so far): {last.reason}"
        if last is not None and last.use is Use.REFUSED:
            return Level.ERROR, f"the last image could not be used: {last.reason}"
        if last is not None and last.use is Use.PAUSED:
            return Level.ERROR, f"paused: {last.reason}"
        text = f"collecting: {len(journal)} keyframes from {self._uses.total()} frames"
        if journal.folder is None:
            return Level.WARN, f"{text}, in memory only: map_path was empty at the start, a crash would lose them"
        return Level.OK, text


def _disk_free(journal: KeyframeJournal) -> str:
    if journal.folder is None:
        return "no folder"
    folder = journal.folder
    while not os.path.exists(folder):
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB"
