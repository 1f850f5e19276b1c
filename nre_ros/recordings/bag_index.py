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
from nre_ros.recordings.bag_topics import STREAM_KINDS, choose_topic, pose_candidates
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
class Surroundings:
    """What holds for every source of poses: the transforms, the calibrations, and what was wrong with them."""

    tree: TransformTree
    cameras: list[tuple[int, Camera]]
    problems: list[str]


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


def index_bag(bag: BagReader, info_topic: str, image_frame: str, options: PoseOptions) -> BagIndex:
    """Read calibrations, transforms and poses.

    Raises RecordingError for a damaged bag and for poses that were asked for by name but cannot be had;
    CalibrationError for a bad camera_info.
    """
    around = read_surroundings(bag, info_topic, image_frame)
    try:
        poses, doubts = find_poses(bag, around.tree, options)
    except RecordingError as error:
        if options.topic or options.map_frame:
            raise
        return BagIndex(around.cameras, None, str(error), around.problems)
    return BagIndex(around.cameras, poses, "", [*around.problems, *doubts])


def read_surroundings(bag: BagReader, info_topic: str, image_frame: str) -> Surroundings:
    """Raises as :func:`index_bag`. Calibrations of other cameras on the same topic, by their frame, are left out."""
    tree = TransformTree(cache_ns=None, max_gap_ns=MAX_GAP_NS)
    transforms = [topic.name for topic in bag.topics.values() if topic.kind == messages.TF]
    infos: list[tuple[str, int, Camera]] = []
    refused: dict[str, None] = {}
    parents: dict[str, dict[str, None]] = {}
    for topic, raw in bag.messages(info_topic, *transforms):
        msg = bag.decode(topic, raw)
        if topic in transforms:
            refused |= dict.fromkeys(add_transforms(tree, msg, static=topic.endswith("tf_static")))
            for transform in msg.transforms:
                parents.setdefault(transform.child_frame_id, {})[transform.header.frame_id] = None
            continue
        infos.append((msg.header.frame_id, messages.stamp_ns_of(msg.header), camera_from_info(msg)))
    if not infos:
        raise RecordingError(f"bag {bag.path} announces messages of {info_topic} but holds none; it is damaged")
    own = [info for info in infos if info[0] == image_frame] or infos
    cameras: list[tuple[int, Camera]] = []
    for _, stamp_ns, camera in own:
        if not cameras or camera != cameras[-1][1]:
            cameras.append((stamp_ns, camera))
    torn = [
        f"the frame {child} hangs on {' and on '.join(above)} by turns, as two nodes that publish it would do: only "
        "what was sent after the last change is used"
        for child, above in parents.items()
        if len(above) > 1
    ]
    return Surroundings(tree, cameras, [*refused, *torn])


def find_poses(bag: BagReader, tree: TransformTree, options: PoseOptions) -> tuple[PoseSource, list[str]]:
    """The source of poses, by the order that BagRecording documents, and what is doubtful about it.

    Extrinsics of the options go into the tree. Raises RecordingError.
    """
    if options.base_from_camera is not None:
        base, rigid = options.base_frame or BASE_FRAME, options.base_from_camera
        tree.set_transform_xyzw(base, options.camera_frame, rigid[:3], rigid[3:], 0, static=True)
    if options.topic and bag.topics[options.topic].kind != messages.TF:
        return _from_topic(bag, options.topic, tree, options)
    try:
        return tf_poses(tree, options.map_frame or MAP_FRAME, options.camera_frame), []
    except TransformError as error:
        reason = str(error)
    streams = [] if options.topic else pose_candidates(bag, STREAM_KINDS)
    if streams:
        return _from_topic(bag, choose_topic(bag, "", STREAM_KINDS, "pose_topic", streams), tree, options)
    root = tree.root_of(options.camera_frame)
    if not options.map_frame and tree.latest_ns(root, options.camera_frame) is not None:
        return tf_poses(tree, root, options.camera_frame), []
    paths = [] if options.topic else pose_candidates(bag, (messages.PATH,))
    if paths:
        return _from_topic(bag, choose_topic(bag, "", (messages.PATH,), "pose_topic", paths), tree, options)
    raise RecordingError(f"{reason}; record /tf and /tf_static, or a topic of poses")


def _from_topic(bag: BagReader, topic: str, tree: TransformTree, options: PoseOptions) -> tuple[PoseSource, list[str]]:
    return topic_poses(bag, topic, tree, options.map_frame, options.base_frame, options.camera_frame)
