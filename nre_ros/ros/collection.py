"""Frames into the map builder and a map out of it; runs in the worker thread."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import traceback
from dataclasses import dataclass
from enum import Enum

import numpy as np

from nre_ros.errors import MapError, NreError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError
from nre_ros.mapping import Map, MapBuilder, save_map
from nre_ros.mapping.journal import KeyframeJournal
from nre_ros.mapping.preview import preview_points
from nre_ros.recordings.frame import Frame
from nre_ros.ros.camera_input import Snapshot
from nre_ros.ros.conversions import depth_from_message
from nre_ros.ros.depth_input import DepthInput
from nre_ros.ros.pose_input import PoseInput

PREVIEW_POINTS = 200
"""Of each keyframe, shown while collecting."""


class Use(Enum):
    """What became of a frame."""

    KEYFRAME = "keyframe"
    PASSED_OVER = "too like the last keyframe, or blurred"
    NO_POSE = "no pose"
    REFUSED = "refused"
    PAUSED = "paused"


@dataclass(frozen=True)
class FrameOutcome:
    """``reason`` is empty for frames that were used or passed over; a keyframe comes with what to show of it."""

    stamp_ns: int
    use: Use
    reason: str = ""
    map_from_cam: Pose | None = None
    preview_xyz: np.ndarray | None = None


@dataclass(frozen=True)
class SaveOutcome:
    """A map that was built and written, or the reason why not."""

    map: Map | None
    text: str


@dataclass(frozen=True)
class Shot:
    """An image, and where its pose and depth come from."""

    image: Snapshot
    poses: PoseInput
    depth: DepthInput


class Collection:
    """What the worker does with the builder. Its methods never raise: results carry the reason.

    While keyframes cannot be written, up to ``most_in_memory`` of them wait in memory; then frames are refused until
    there is room on the disk again.
    """

    def __init__(self, builder: MapBuilder, journal: KeyframeJournal, *, wait_s: float, most_in_memory: int) -> None:
        self._builder = builder
        self.journal = journal
        self._wait_s = wait_s
        self._most_in_memory = most_in_memory
        self._saved = 0
        self._cancelled = threading.Event()
        self.progress = ""
        """Where the building stands, for diagnostics; empty while none is under way."""

    def cancel(self) -> None:
        """End a building under way at its next step."""
        self._cancelled.set()

    def close(self) -> int:
        """Leave the keyframes on disk for the next session, or remove them when all are in a map.

        Returns how many are lost because they could not be written.
        """
        self._builder.settle()
        self.journal.flush()
        lost = max(0, self.journal.waiting - self._saved)
        if self._saved == len(self.journal):
            with contextlib.suppress(MapError):  # then they are resumed the next time, which does no harm
                self.journal.remove()
            return 0
        self.journal.close()
        return lost

    def add(self, shot: Shot) -> FrameOutcome:
        stamp_ns = shot.image.stamp_ns
        try:
            if self.journal.waiting and not self.journal.flush() and self.journal.waiting >= self._most_in_memory:
                return FrameOutcome(stamp_ns, Use.PAUSED, self._pause())
            if not self._builder.add(self._frame(shot)):
                return FrameOutcome(stamp_ns, Use.PASSED_OVER)
            return self._shown(stamp_ns)
        except TransformError as error:
            return FrameOutcome(stamp_ns, Use.NO_POSE, str(error))
        except NreError as error:
            return FrameOutcome(stamp_ns, Use.REFUSED, str(error))
        except Exception:
            return FrameOutcome(stamp_ns, Use.REFUSED, f"internal error, please report it: {traceback.format_exc()}")

    def save(self, path: str) -> SaveOutcome:
        """Build the map from the keyframes so far and write it."""
        try:
            map_ = self._builder.build(progress=self._note)
            count = len(self.journal)
            self._note("writing", 0, 1)
            save_map(map_, path)
            self._saved = count
            text = f"map saved to {path}: {map_.keyframe_count} keyframes, {len(map_.xyz_map)} landmarks"
            return SaveOutcome(map_, "; ".join([text, *self._builder.remarks]))
        except NreError as error:
            return SaveOutcome(None, f"no map was saved: {error}")
        except Exception:
            return SaveOutcome(None, f"no map was saved, please report this error: {traceback.format_exc()}")
        finally:
            self.progress = ""

    def _frame(self, shot: Shot) -> Frame:
        image = shot.image
        frame = image.to_frame()
        map_from_cam = shot.poses.map_from_camera(image.frame_id, image.stamp_ns)
        depth = shot.depth.of(image.stamp_ns, self._wait_s)
        depth_m = None if depth is None else depth_from_message(depth)
        return dataclasses.replace(frame, map_from_cam=map_from_cam, depth_m=depth_m)

    def _shown(self, stamp_ns: int) -> FrameOutcome:
        """Of the newest keyframe."""
        keyframe = self.journal[-1]
        previous = self.journal[-2] if len(self.journal) > 1 else None
        points = preview_points(keyframe, previous, PREVIEW_POINTS)
        return FrameOutcome(stamp_ns, Use.KEYFRAME, "", keyframe.map_from_cam, points)

    def _pause(self) -> str:
        count = self.journal.waiting
        if self.journal.folder is None:
            return f"{count} keyframes are in memory, as many as memory_keyframes allows: save the map, set map_path"
        return f"{count} keyframes wait in memory, as many as memory_keyframes allows; {self.journal.trouble}"

    def _note(self, stage: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise MapError("the building was cancelled")
        self.progress = f"{stage} {done}/{total}"
