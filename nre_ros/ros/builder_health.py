"""How well the collecting of a map goes."""

from __future__ import annotations

from collections import Counter

from nre_ros.geometry.pose_track import seconds
from nre_ros.ros.camera_input import CameraInput
from nre_ros.ros.collection import FrameOutcome, Use
from nre_ros.ros.diagnostics import Level, Report


class BuilderHealth:
    """Kept from configuration to clean-up, as the keyframes are."""

    def __init__(self) -> None:
        self._uses: Counter[Use] = Counter()
        self._last: FrameOutcome | None = None
        self._last_trouble = ""

    @property
    def keyframes(self) -> int:
        return self._uses[Use.KEYFRAME]

    def note(self, outcome: FrameOutcome) -> None:
        self._uses[outcome.use] += 1
        self._last = outcome
        self._last_trouble = outcome.reason or self._last_trouble

    def report(
        self,
        camera: CameraInput,
        *,
        stale_timeout_s: float,
        pose_source: str,
        collecting: bool,
        progress: str,
        dropped: int,
    ) -> Report:
        """``progress`` is empty unless a map is being built."""
        values = {
            "frames": str(self._uses.total()),
            "keyframes": str(self.keyframes),
            "frames without pose": str(self._uses[Use.NO_POSE]),
            "refused frames": str(self._uses[Use.REFUSED]),
            "dropped frames": str(dropped),
            "pose source": pose_source,
            "last trouble": self._last_trouble,
            "last image stamp processed": "" if self._last is None else seconds(self._last.stamp_ns),
        }
        if progress:
            return Report(Level.OK, f"builds the map: {progress}", values)
        if not collecting:
            return Report(Level.OK, f"stopped with {self.keyframes} keyframes; call start or save_map", values)
        level, message = self._verdict(camera, stale_timeout_s, pose_source)
        return Report(level, message, values)

    def _verdict(self, camera: CameraInput, stale_timeout_s: float, pose_source: str) -> tuple[Level, str]:
        if camera.silence_s > stale_timeout_s:
            return Level.ERROR, camera.missing_images()
        if not camera.seen:
            return Level.WARN, "waits for the first image"
        if trouble := camera.calibration_trouble():
            return Level.ERROR, trouble
        last = self._last
        if last is not None and last.use is Use.NO_POSE:
            count = self._uses[Use.NO_POSE]
            return Level.ERROR, f"no pose for the last image from {pose_source} ({count} so far): {last.reason}"
        if last is not None and last.use is Use.REFUSED:
            return Level.ERROR, f"the last image could not be used: {last.reason}"
        return Level.OK, f"collecting: {self.keyframes} keyframes from {self._uses.total()} frames"
