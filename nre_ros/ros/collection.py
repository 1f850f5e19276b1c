"""Frames into the map builder and a map out of it; runs in the worker thread."""

from __future__ import annotations

import dataclasses
import threading
import traceback
from dataclasses import dataclass
from enum import Enum

from nre_ros.errors import MapError, NreError
from nre_ros.geometry.pose_track import TransformError
from nre_ros.mapping import Map, MapBuilder, save_map
from nre_ros.ros.camera_input import Snapshot
from nre_ros.ros.conversions import depth_from_message
from nre_ros.ros.depth_input import DepthInput
from nre_ros.ros.pose_input import PoseInput


class Use(Enum):
    """What became of a frame."""

    KEYFRAME = "keyframe"
    PASSED_OVER = "too like the last keyframe"
    NO_POSE = "no pose"
    REFUSED = "refused"


@dataclass(frozen=True)
class FrameOutcome:
    """``reason`` is empty for frames that were used or passed over."""

    stamp_ns: int
    use: Use
    reason: str = ""


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
    """What the worker does with the builder. Its methods never raise: results carry the reason."""

    def __init__(self, builder: MapBuilder, wait_s: float) -> None:
        self._builder = builder
        self._wait_s = wait_s
        self._cancelled = threading.Event()
        self.progress = ""
        """Where the building stands, for diagnostics; empty while none is under way."""

    def cancel(self) -> None:
        """End a building under way at its next step."""
        self._cancelled.set()

    def add(self, shot: Shot) -> FrameOutcome:
        image = shot.image
        try:
            frame = image.to_frame()
            map_from_cam = shot.poses.map_from_camera(image.frame_id, image.stamp_ns)
            depth = shot.depth.of(image.stamp_ns, self._wait_s)
            depth_m = None if depth is None else depth_from_message(depth)
            frame = dataclasses.replace(frame, map_from_cam=map_from_cam, depth_m=depth_m)
            used = self._builder.add(frame)
            return FrameOutcome(image.stamp_ns, Use.KEYFRAME if used else Use.PASSED_OVER)
        except TransformError as error:
            return FrameOutcome(image.stamp_ns, Use.NO_POSE, str(error))
        except NreError as error:
            return FrameOutcome(image.stamp_ns, Use.REFUSED, str(error))
        except Exception:
            return FrameOutcome(
                image.stamp_ns, Use.REFUSED, f"internal error, please report it: {traceback.format_exc()}"
            )

    def save(self, path: str) -> SaveOutcome:
        """Build the map from the keyframes so far and write it."""
        try:
            map_ = self._builder.build(progress=self._note)
            save_map(map_, path)
            count = f"{self._builder.keyframe_count} keyframes, {len(map_.xyz_map)} landmarks"
            return SaveOutcome(map_, f"map saved to {path}: {count}")
        except NreError as error:
            return SaveOutcome(None, f"no map was saved: {error}")
        except Exception:
            return SaveOutcome(None, f"no map was saved, please report this error: {traceback.format_exc()}")
        finally:
            self.progress = ""

    def _note(self, stage: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise MapError("the building was cancelled")
        self.progress = f"{stage} {done}/{total}"
