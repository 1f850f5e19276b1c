"""rosbag2 recordings (mcap or sqlite3), read without ROS."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nre_ros.errors import RecordingError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_index import BagIndex, PoseOptions, index_bag
from nre_ros.recordings.bag_poses import PoseSource, extrinsics_from_text
from nre_ros.recordings.bag_reader import BagReader
from nre_ros.recordings.bag_topics import NO_TOPIC, POSE_KINDS, choose_camera_topics, choose_topic
from nre_ros.recordings.bag_writer import UNIT_KEY
from nre_ros.recordings.camera_info import check_size
from nre_ros.recordings.compressed import decode_compressed
from nre_ros.recordings.frame import Frame
from nre_ros.recordings.images import decode_depth, decode_image
from nre_ros.recordings.tables import check_role, read_roles

DEPTH_NS = 5_000_000
"""Furthest that a depth image may be from its colour image."""


class BagRecording:
    """The images of one camera in a rosbag2 folder (or a single .mcap or .db3 file).

    Topics left empty are found by type; ``depth_topic="none"`` leaves depth out. The stamp of a frame is that of the
    image's header; its depth image is the nearest within 5 ms. Poses, the first of these that the bag has:

    1. ``pose_topic`` where given: Odometry (pose of its child_frame_id), PoseStamped, PoseWithCovarianceStamped or Path
       (pose of ``base_frame``; by default base_link, or the camera where no transform connects the two), or "/tf";
    2. TF from ``map_frame`` (default "map") to ``camera_frame`` (default: the frame_id of the images);
    3. the only topic of one of these types, Path aside;
    4. without ``map_frame``: TF from the root of the camera's tree, where something in it moves;
    5. the only Path: its longest message, or the last of these.

    Between two poses or transforms less than 0.5 s apart the pose is interpolated; a frame without has none.
    ``camera_extrinsics`` ("x y z qx qy qz qw", base_from_camera) stands in for tf_static. A ``split.txt`` in the
    folder gives roles, as in TUM folders. ``unit`` is metre unless :class:`BagWriter` wrote another.

    Images of another frame_id than the first are another camera's: they are left out and told. A bag that was cut off
    is read as far as it goes. Raises RecordingError for bags that are damaged, or lack images or calibration.
    """

    def __init__(
        self,
        path: str | Path,
        image_topic: str = "",
        camera_info_topic: str = "",
        depth_topic: str = "",
        pose_topic: str = "",
        map_frame: str = "",
        camera_frame: str = "",
        base_frame: str = "",
        camera_extrinsics: str = "",
    ) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().stem if self.path.is_file() else self.path.resolve().name
        self.problems: list[str] = []
        self._bag = BagReader(self.path)
        self.unit = self._bag.custom_data.get(UNIT_KEY, "metre")
        self.roles = read_roles(self.path) if self.path.is_dir() else {}
        self.topics = choose_camera_topics(self._bag, image_topic, camera_info_topic, depth_topic)
        self._depth_was_asked_for = bool(depth_topic)
        self._pose_options = PoseOptions(
            topic=choose_topic(self._bag, pose_topic, (*POSE_KINDS, messages.TF), "pose_topic", []),
            map_frame=map_frame,
            base_frame=base_frame,
            camera_frame=camera_frame or self.topics.frame_id,
            base_from_camera=extrinsics_from_text(camera_extrinsics) if camera_extrinsics else None,
        )
        self._index: BagIndex | None = None

    def count(self, split: str | None = None) -> int:
        """Images of the role; raises RecordingError for a role the bag does not define."""
        check_role(split, self.roles, str(self.path))
        if split is not None:
            return sum(role == split for role in self.roles.values())
        return self._bag.topics[self.topics.image].count

    def require_poses(self) -> None:
        """Raises RecordingError when no frame can have a pose."""
        index = self._indexed()
        if index.poses is None:
            raise RecordingError(f"bag {self.path} has no poses of the camera: {index.no_poses}")

    def frames(self, split: str | None = None) -> Iterator[Frame]:
        """Frames in the order in which the images were recorded, read as a stream.

        Raises CalibrationError when an image is not of the size in its camera_info, and RecordingError where the bag is
        damaged or not a single image can be read.
        """
        check_role(split, self.roles, str(self.path))
        return self._frames(split)

    def _frames(self, split: str | None) -> Iterator[Frame]:
        index = self._indexed()
        self.problems = [*self._bag.problems, *self.topics.remarks, *index.problems]
        depths = _DepthStream(self._bag, self.topics.depth, self.problems)
        seen, readable, poseless, reason = 0, 0, 0, index.no_poses
        strangers = Counter[str]()
        for topic, raw in self._bag.messages(self.topics.image):
            try:
                msg = self._bag.decode(topic, raw)
                stamp_ns = messages.stamp_ns_of(msg.header)
                if split is not None and self.roles.get(stamp_ns) != split:
                    continue
                if msg.header.frame_id != self.topics.frame_id:
                    strangers[msg.header.frame_id] += 1
                    continue
                seen += 1
                image = _decoded(msg)
            except RecordingError as error:
                self.problems.append(f"an image of {topic} is left out: {error}")
                continue
            camera = index.camera_at(stamp_ns)
            check_size(camera, image)
            readable += 1
            map_from_cam, why = _pose_at(index.poses, stamp_ns)
            if map_from_cam is None:
                poseless, reason = poseless + 1, reason or why
            depth_m = self._registered(depths.near(stamp_ns), image)
            yield Frame(stamp_ns, image, camera, map_from_cam, depth_m, f"{topic}#{seen}")
        self.problems += [
            f"{count} images of {self.topics.image} are of the frame {frame!r}, the first of {self.topics.frame_id!r}: "
            "those of another camera are left out"
            for frame, count in strangers.items()
        ]
        self.problems += depths.told(seen)
        if poseless:
            self.problems.append(f"{poseless} of {seen} images of {self.path} have no pose: {reason}")
        if not readable:
            told = f"; {self.problems[-1]}" if self.problems else ""
            raise RecordingError(f"none of the images of {self.topics.image} in {self.path} is usable{told}")

    def _registered(self, depth_m: np.ndarray | None, image: np.ndarray) -> np.ndarray | None:
        """Depth of the size of the image; another size is an error only where the user chose the topic."""
        if depth_m is None or depth_m.shape == image.shape[:2]:
            return depth_m
        text = (
            f"depth images of {self.topics.depth} are {depth_m.shape[1]}x{depth_m.shape[0]}, the colour images "
            f"{image.shape[1]}x{image.shape[0]}, so they are not registered to each other"
        )
        if self._depth_was_asked_for:
            raise RecordingError(f"{text}; name another --depth-topic, or {NO_TOPIC}")
        if not any(text in problem for problem in self.problems):
            self.problems.append(f"{text}: depth is left out")
        return None

    def _indexed(self) -> BagIndex:
        if self._index is None:
            self._index = index_bag(self._bag, self.topics.info, self.topics.frame_id, self._pose_options)
        return self._index


class _DepthStream:
    """Depth images beside the stream of colour images: holds only those near the last stamp asked for."""

    def __init__(self, bag: BagReader, topic: str, problems: list[str]) -> None:
        self._bag, self._problems = bag, problems
        self._messages = bag.messages(topic) if topic else iter(())
        self._window: deque[tuple[int, Any]] = deque()
        self._offsets_ns: list[int] = []

    def near(self, stamp_ns: int) -> np.ndarray | None:
        """Metres (H, W) of the nearest stamp within 5 ms, for stamps that ascend."""
        while not self._window or self._window[-1][0] < stamp_ns + DEPTH_NS:
            item = next(self._messages, None)
            if item is None:
                break
            try:
                msg = self._bag.decode(*item)
                self._window.append((messages.stamp_ns_of(msg.header), msg))
            except RecordingError as error:
                self._problems.append(f"a depth image is left out: {error}")
        self._offsets_ns += [min(abs(entry[0] - stamp_ns) for entry in self._window)] if self._window else []
        while self._window and self._window[0][0] < stamp_ns - DEPTH_NS:
            self._window.popleft()
        near = [entry for entry in self._window if abs(entry[0] - stamp_ns) <= DEPTH_NS]
        if not near:
            return None
        msg = min(near, key=lambda entry: abs(entry[0] - stamp_ns))[1]
        try:
            return decode_depth(msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian, msg.data)
        except RecordingError as error:
            self._problems.append(f"a depth image is left out: {error}")
            return None

    def told(self, images: int) -> list[str]:
        """A sentence where depth images were not near enough to the colour images."""
        far = [offset for offset in self._offsets_ns if offset > DEPTH_NS]
        if not far:
            return []
        return [
            f"{len(far)} of {images} images have no depth within {DEPTH_NS * 1e-6:g} ms: the nearest is "
            f"{statistics.median(far) * 1e-6:.1f} ms away (median); synchronise the stamps of the two"
        ]


def _decoded(msg: Any) -> np.ndarray:
    """uint8 RGB of an Image or a CompressedImage."""
    if hasattr(msg, "format"):
        return decode_compressed(msg.format, msg.data)
    return decode_image(msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian, msg.data)


def _pose_at(poses: PoseSource | None, stamp_ns: int) -> tuple[Pose | None, str]:
    if poses is None:
        return None, ""
    try:
        return poses.at(stamp_ns), ""
    except TransformError as error:
        return None, str(error)
