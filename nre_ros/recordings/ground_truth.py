"""Other poses for a recording's images than its own: a trajectory file, or a list by the names of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nre_ros.errors import RecordingError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import (
    PoseTrack,
    Rigid,
    TransformError,
    compose,
    pose_from_rigid,
    rigid_from_xyzw,
    seconds,
)
from nre_ros.recordings.frame import Frame, Recording
from nre_ros.recordings.tables import read_stamped_rows

MAX_GAP_NS = 500_000_000
"""Poses this far apart are not interpolated."""
NEAREST_NS = 20_000_000
"""Where interpolation is impossible, a pose this near to the image is taken as it is."""


@dataclass(frozen=True)
class StampedPoses:
    """map_from_cam over time."""

    track: PoseTrack
    posed_from_cam: Rigid

    def of(self, frame: Frame) -> Pose | None:
        try:
            return pose_from_rigid(compose(self.track.at_or_near(frame.stamp_ns, NEAREST_NS), self.posed_from_cam))
        except TransformError:
            return None

    def why_none(self, stamps_ns: list[int]) -> str:
        own = self.track.stamps_ns
        images, poses = (f"{seconds(s[0])} to {seconds(s[-1])} s" for s in (sorted(stamps_ns), own))
        return f"images are of {images}, poses of {poses}: the two do not overlap in time; are both on one clock?"


@dataclass(frozen=True)
class NamedPoses:
    """map_from_cam by the images' names."""

    poses: dict[str, Pose]
    posed_from_cam: Rigid

    def of(self, frame: Frame) -> Pose | None:
        pose = self.poses.get(frame.name)
        return None if pose is None else pose @ pose_from_rigid(self.posed_from_cam)

    def why_none(self, stamps_ns: list[int]) -> str:
        return f"its names, such as {min(self.poses)}, are none of the images' names"


class ReposedRecording:
    """A recording whose frames have the poses of ``file`` instead of their own.

    The file is one of two, told apart by its first word:

    - TUM format, "timestamp tx ty tz qx qy qz qw" of map_from_posed; interpolated between poses less than 0.5 s apart;
    - "name qw qx qy qz tx ty tz", anything after it ignored, of posed_from_map, as COLMAP and the pseudo ground truths
      of 7-Scenes have it; ``name`` is that of the frame.

    ``posed_from_cam`` leads from the camera's optical frame to what the file has poses of. Raises RecordingError for a
    file that cannot be read, and, once the frames were read, when none of them has a pose.
    """

    def __init__(self, recording: Recording, file: str | Path, posed_from_cam: Rigid) -> None:
        self._recording = recording
        self._file = Path(file)
        self.name, self.unit, self.roles = recording.name, recording.unit, recording.roles
        self.problems: list[str] = []
        self._poses = _read(self._file, posed_from_cam)

    def __getattr__(self, name: str) -> Any:
        """What only some recordings have is as the recording has it."""
        return getattr(self._recording, name)

    def count(self, split: str | None = None) -> int:
        return self._recording.count(split)

    def require_poses(self) -> None:
        """The file has some, or it would have been refused."""

    def frames(self, split: str | None = None) -> Iterator[Frame]:
        frames = self._recording.frames(split)
        return self._frames(frames)

    def _frames(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        stamps_ns, posed = [], 0
        for frame in frames:
            pose = self._poses.of(frame)
            stamps_ns.append(frame.stamp_ns)
            posed += pose is not None
            yield replace(frame, map_from_cam=pose)
        told = [problem for problem in self._recording.problems if "no pose" not in problem]
        if stamps_ns and not posed:
            why = self._poses.why_none(stamps_ns)
            raise RecordingError(f"none of {len(stamps_ns)} images has a pose in {self._file}: {why}")
        if posed < len(stamps_ns):
            told.append(f"{len(stamps_ns) - posed} of {len(stamps_ns)} images have no pose in {self._file}")
        self.problems = told


def _read(file: Path, posed_from_cam: Rigid) -> StampedPoses | NamedPoses:
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"ground truth {file} cannot be read: {error}") from None
    first = next((words[0] for words in lines if words and not words[0].startswith("#")), None)
    if first is None:
        raise RecordingError(f"ground truth {file} holds no pose, expected lines 'timestamp tx ty tz qx qy qz qw'")
    try:
        float(first)
    except ValueError:
        return NamedPoses(_named(file, lines), posed_from_cam)
    return StampedPoses(_track(file), posed_from_cam)


def _track(file: Path) -> PoseTrack:
    track = PoseTrack(file.name, max_gap_ns=MAX_GAP_NS)
    for where, stamp_ns, text in read_stamped_rows(file):
        track.add(stamp_ns, _rigid(text.split(), where, "tx ty tz qx qy qz qw"))
    return track


def _named(file: Path, lines: list[list[str]]) -> dict[str, Pose]:
    poses = {}
    for number, words in enumerate(lines, 1):
        if not words or words[0].startswith("#"):
            continue
        where, (w, x, y, z, *xyz) = f"{file} line {number}", (words[1:8] + [""] * 7)[:7]
        rigid = _rigid([*xyz, x, y, z, w], where, "qw qx qy qz tx ty tz")
        poses[words[0]] = pose_from_rigid(rigid).inverse()
    return poses


def _rigid(words: list[str], where: str, order: str) -> Rigid:
    try:
        x, y, z, qx, qy, qz, qw = (float(word) for word in words)
        return rigid_from_xyzw((x, y, z), (qx, qy, qz, qw))
    except (ValueError, TransformError) as error:
        raise RecordingError(f"{where} holds no pose ({error}); expected {order}") from None
