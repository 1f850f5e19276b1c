"""Where the camera of a bag was: from TF, or from a topic of poses and the camera's place on the robot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nre_ros.errors import RecordingError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import (
    PoseTrack,
    Rigid,
    TransformError,
    compose,
    pose_from_rigid,
    rigid_from_pose,
    rigid_from_xyzw,
)
from nre_ros.geometry.transform_tree import TransformTree
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_reader import BagReader

MAX_GAP_NS = 500_000_000
"""Poses and transforms this far apart are not interpolated."""
NEAREST_NS = 20_000_000
"""Where interpolation is impossible, a pose of a topic this near to the image is taken as it is."""


@dataclass(frozen=True)
class TfPoses:
    """Poses of ``camera_frame`` in ``map_frame`` from transforms alone."""

    tree: TransformTree
    map_frame: str
    camera_frame: str

    def at(self, stamp_ns: int) -> Pose:
        """map_from_cam; raises TransformError."""
        return self.tree.lookup(self.map_frame, self.camera_frame, stamp_ns)


@dataclass(frozen=True)
class TopicPoses:
    """Poses of ``posed_frame`` from a topic, carried over to ``camera_frame`` by the transforms between the two."""

    track: PoseTrack
    posed_frame: str
    tree: TransformTree
    camera_frame: str

    def at(self, stamp_ns: int) -> Pose:
        """map_from_cam; raises TransformError."""
        map_from_posed = self.track.at_or_near(stamp_ns, NEAREST_NS)
        posed_from_cam = rigid_from_pose(self.tree.lookup(self.posed_frame, self.camera_frame, stamp_ns))
        return pose_from_rigid(compose(map_from_posed, posed_from_cam))


PoseSource = TfPoses | TopicPoses


def add_transforms(tree: TransformTree, msg: Any, static: bool) -> list[str]:
    """Put a tf2_msgs/TFMessage into the tree; returns a sentence for each transform that was refused."""
    refused = []
    for transform in msg.transforms:
        t, q = transform.transform.translation, transform.transform.rotation
        stamp_ns = messages.stamp_ns_of(transform.header)
        try:
            tree.set_transform_xyzw(
                transform.header.frame_id,
                transform.child_frame_id,
                (t.x, t.y, t.z),
                (q.x, q.y, q.z, q.w),
                stamp_ns,
                static,
            )
        except TransformError as error:
            refused.append(str(error))
    return refused


def extrinsics_from_text(text: str) -> Rigid:
    """base_from_camera from "x y z qx qy qz qw" (metres; spaces or commas between); raises RecordingError."""
    try:
        numbers = [float(v) for v in text.replace(",", " ").split()]
        if len(numbers) == 7:
            return rigid_from_xyzw(numbers[:3], numbers[3:])
    except (ValueError, TransformError) as error:
        raise RecordingError(f"camera_extrinsics is {text!r}: {error}") from None
    raise RecordingError(f"camera_extrinsics is {text!r}, expected seven numbers x y z qx qy qz qw")


def tf_poses(tree: TransformTree, map_frame: str, camera_frame: str) -> TfPoses:
    """Raises TransformError when the two frames are not connected."""
    tree.latest_ns(map_frame, camera_frame)
    return TfPoses(tree, map_frame, camera_frame)


def topic_poses(
    bag: BagReader, topic: str, tree: TransformTree, map_frame: str, base_frame: str, camera_frame: str
) -> tuple[TopicPoses, list[str]]:
    """The poses of a topic, and sentences on what is doubtful about them.

    An Odometry is the pose of its child_frame_id; a PoseStamped or PoseWithCovarianceStamped that of ``base_frame``,
    or, when that is empty, of base_link if the transforms connect it with the camera, and of the camera itself if not
    (which is told). Of a Path, whose poses are such PoseStamped, the longest message counts, or the last of these.

    Raises RecordingError when the transforms do not lead to the camera, or the poses are not in ``map_frame`` (empty:
    any one frame).
    """
    track = PoseTrack(topic, max_gap_ns=MAX_GAP_NS)
    refused: list[str] = []
    frames, children = set(), set()
    for msg in _posed_messages(bag, topic, refused):
        try:
            p, q = _pose(msg).position, _pose(msg).orientation
            track.add(messages.stamp_ns_of(msg.header), rigid_from_xyzw((p.x, p.y, p.z), (q.x, q.y, q.z, q.w)))
        except TransformError as error:
            refused.append(f"a pose of {topic} is left out: {error}")
            continue
        frames.add(msg.header.frame_id)
        children.add(getattr(msg, "child_frame_id", "") or base_frame)
    if len(frames) > 1 or (map_frame and frames - {map_frame}):
        raise RecordingError(
            f"poses of {topic} are in the frame {' and '.join(sorted(frames))}, expected {map_frame or 'one frame'}"
        )
    posed_frame = children.pop() if children else base_frame
    if not posed_frame:
        posed_frame, doubt = _frame_of_bare_pose(topic, tree, camera_frame)
        refused += doubt
    try:
        tree.latest_ns(posed_frame, camera_frame)
    except TransformError as error:
        raise RecordingError(
            f"{topic} holds poses of {posed_frame}, but no transform leads from there to the camera {camera_frame!r} "
            f"({error}); give --camera-extrinsics"
        ) from None
    return TopicPoses(track, posed_frame, tree, camera_frame), refused


def _posed_messages(bag: BagReader, topic: str, refused: list[str]) -> Iterator[Any]:
    """Odometry, PoseStamped or PoseWithCovarianceStamped; what cannot be read goes to ``refused``."""
    if bag.topics[topic].kind == messages.PATH:
        yield from _poses_of_path(bag, topic)
        return
    for _, raw in bag.messages(topic):
        try:
            yield bag.decode(topic, raw)
        except RecordingError as error:
            refused.append(f"a pose of {topic} is left out: {error}")


def _poses_of_path(bag: BagReader, topic: str) -> list[Any]:
    longest = b""
    for _, raw in bag.messages(topic):
        if len(raw) >= len(longest):
            longest = raw
    path = bag.decode(topic, longest)
    stamps = {messages.stamp_ns_of(pose.header) for pose in path.poses}
    if len(stamps) < 2:
        raise RecordingError(
            f"the poses of the path {topic} have no times of their own ({len(path.poses)} poses, {len(stamps)} "
            "stamps), so they cannot be given to images; choose another --pose-topic"
        )
    for pose in path.poses:
        pose.header.frame_id = path.header.frame_id or pose.header.frame_id
    return list(path.poses)


def _frame_of_bare_pose(topic: str, tree: TransformTree, camera_frame: str) -> tuple[str, list[str]]:
    try:
        tree.latest_ns("base_link", camera_frame)
        return "base_link", []
    except TransformError:
        doubt = f"{topic} does not say whose pose it is, and no transform leads from base_link to the camera"
        return camera_frame, [f"{doubt}: taken for the pose of the camera's optical frame (else give --base-frame)"]


def _pose(msg: Any) -> Any:
    """geometry_msgs/Pose of a PoseStamped, PoseWithCovarianceStamped or Odometry."""
    return getattr(msg.pose, "pose", msg.pose)
