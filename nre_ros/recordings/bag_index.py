"""The first pass over a bag: its calibrations and poses, everything but the images."""

from __future__ import annotations

from dataclasses import dataclass

from nre_ros.errors import RecordingError
from nre_ros.geometry import Camera
from nre_ros.geometry.pose_track import Rigid, TransformError
from nre_ros.geometry.transform_tree import TransformTree
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_poses import MAX_GAP_NS, PoseSource, add_transforms, tf_poses, topic_poses
from nre_ros.recordings.bag_reader import BagReader
from nre_ros.recordings.bag_topics import POSE_KINDS, choose_topic, pose_candidates
from nre_ros.recordings.bag_writer import BASE_FRAME, MAP_FRAME
from nre_ros.recordings.camera_info import camera_from_info


@dataclass(frozen=True)
class PoseOptions:
    """What the user said of the poses; "" and None where nothing was said."""

    topic: str
    map_frame: str
    base_frame: str
    camera_frame: str
    base_from_camera: Rigid | None


@dataclass(frozen=True)
class BagIndex:
    """``cameras``: calibrations with the stamp from which each holds. ``poses`` is None where ``no_poses`` says why."""

    cameras: list[tuple[int, Camera]]
    poses: PoseSource | None
    no_poses: str
    problems: list[str]

    def camera_at(self, stamp_ns: int) -> Camera:
        """The latest calibration that is not younger than the image, else the first."""
        return next((camera for since, camera in reversed(self.cameras) if since <= stamp_ns), self.cameras[0][1])


def index_bag(bag: BagReader, info_topic: str, options: PoseOptions) -> BagIndex:
    """Read calibrations, transforms and poses.

    Raises RecordingError for a damaged bag and for poses that were asked for by name but cannot be had;
    CalibrationError for a bad camera_info.
    """
    tree = TransformTree(cache_ns=None, max_gap_ns=MAX_GAP_NS)
    transforms = [topic.name for topic in bag.topics.values() if topic.kind == messages.TF]
    cameras: list[tuple[int, Camera]] = []
    refused: dict[str, None] = {}
    for topic, raw in bag.messages(info_topic, *transforms):
        msg = bag.decode(topic, raw)
        if topic in transforms:
            refused |= dict.fromkeys(add_transforms(tree, msg, static=topic.endswith("tf_static")))
            continue
        camera = camera_from_info(msg)
        if not cameras or camera != cameras[-1][1]:
            cameras.append((messages.stamp_ns_of(msg.header), camera))
    if not cameras:
        raise RecordingError(f"bag {bag.path} announces messages of {info_topic} but holds none; it is damaged")
    if options.base_from_camera is not None:
        base, rigid = options.base_frame or BASE_FRAME, options.base_from_camera
        tree.set_transform_xyzw(base, options.camera_frame, rigid[:3], rigid[3:], 0, static=True)
    try:
        poses, doubts = _find_poses(bag, tree, options)
    except RecordingError as error:
        if options.topic or options.map_frame:
            raise
        return BagIndex(cameras, None, str(error), list(refused))
    return BagIndex(cameras, poses, "", [*refused, *doubts])


def _find_poses(bag: BagReader, tree: TransformTree, options: PoseOptions) -> tuple[PoseSource, list[str]]:
    """The source of poses, by the order that BagRecording documents, and what is doubtful about it."""
    if options.topic and bag.topics[options.topic].kind != messages.TF:
        return _from_topic(bag, options.topic, tree, options)
    try:
        return tf_poses(tree, options.map_frame or MAP_FRAME, options.camera_frame), []
    except TransformError as error:
        reason = str(error)
    candidates = [] if options.topic else pose_candidates(bag)
    if candidates:
        return _from_topic(bag, choose_topic(bag, "", POSE_KINDS, "pose_topic", candidates), tree, options)
    root = tree.root_of(options.camera_frame)
    if not options.map_frame and tree.latest_ns(root, options.camera_frame) is not None:
        return tf_poses(tree, root, options.camera_frame), []
    raise RecordingError(f"{reason}; record /tf and /tf_static, or a topic of poses")


def _from_topic(bag: BagReader, topic: str, tree: TransformTree, options: PoseOptions) -> tuple[PoseSource, list[str]]:
    return topic_poses(bag, topic, tree, options.map_frame, options.base_frame, options.camera_frame)
