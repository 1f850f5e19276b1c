"""Which options make a map of a bag, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nre_ros.errors import NreError, RecordingError
from nre_ros.geometry.pose_track import TransformError
from nre_ros.geometry.transform_tree import TransformTree
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_index import PoseOptions, find_poses, read_surroundings
from nre_ros.recordings.bag_poses import PoseSource
from nre_ros.recordings.bag_reader import BagReader
from nre_ros.recordings.bag_survey import TopicSurvey, skew_ms
from nre_ros.recordings.bag_topics import (
    NO_TOPIC,
    STREAM_KINDS,
    CameraTopics,
    choose_camera_topics,
    first_images,
    pose_candidates,
    split_colour_and_depth,
)
from nre_ros.recordings.bag_writer import BASE_FRAME, MAP_FRAME

_MOST_LOOKUPS = 400
"""So many images, evenly chosen, tell how many have a pose."""
_SKEW_MS = 5.0
_POSE_SKEW_MS = 100.0
_DELAY_S = 1.0
_GAP_S, _GAP_PERIODS = 1.0, 5
_EXTRINSICS = "x y z qx qy qz qw"


@dataclass(frozen=True)
class PoseSourceReport:
    """``options`` of build-map choose it; ``posed`` is the share of images with a pose, and where it is 0, ``reason``
    says why."""

    name: str
    options: dict[str, str]
    posed: float
    reason: str


@dataclass(frozen=True)
class CameraReport:
    """One topic of colour images with what belongs to it. ``skews_ms`` is the median and largest time from the images
    to the topic named. ``trouble`` says why the camera cannot be used."""

    image: str
    info: str
    depth: str
    frame: str
    sources: list[PoseSourceReport]
    skews_ms: dict[str, tuple[float, float]]
    findings: list[str]
    options: dict[str, str]
    """Of build-map, for this camera with its best source of poses; empty values where nothing need be said."""
    trouble: str = ""


def advise(bag: BagReader, surveys: dict[str, TopicSurvey]) -> tuple[list[CameraReport], list[str]]:
    """A report on each camera of the bag, and sentences on the bag as a whole."""
    colours = sorted(split_colour_and_depth(first_images(bag))[0])
    cameras = [_camera(bag, surveys, topic, alone=len(colours) == 1) for topic in colours]
    findings = [*bag.problems, *_clocks(surveys), *_gaps(surveys)]
    if not colours:
        findings.append("the bag has no colour images; record the camera's images and its camera_info")
    if len(colours) > 1:
        findings.append(f"the bag has {len(colours)} cameras: choose one with --image-topic {' or '.join(colours)}")
    if "/tf_static" not in bag.topics:
        findings.append(
            "the bag has no /tf_static: where the camera sits on the robot must come from /tf, from poses of the "
            f"camera itself, or from --camera-extrinsics '{_EXTRINSICS}' (base_from_camera)"
        )
    return cameras, findings


def _camera(bag: BagReader, surveys: dict[str, TopicSurvey], image: str, alone: bool) -> CameraReport:
    findings: list[str] = []
    options = {} if alone else {"image_topic": image}
    try:
        try:
            topics = choose_camera_topics(bag, image, "", "")
        except RecordingError as error:
            if "depth_topic" not in str(error):
                raise
            findings.append(f"{error}, or {NO_TOPIC}")
            topics = choose_camera_topics(bag, image, "", NO_TOPIC)
            options["depth_topic"] = NO_TOPIC
        around = read_surroundings(bag, topics.info, topics.frame_id)
    except NreError as error:
        return CameraReport(image, "", "", "", [], {}, findings, options, str(error))
    findings += [*topics.remarks, *around.problems, *_frame_findings(surveys[image], around.tree, topics)]
    skews = {
        name: skew_ms(surveys[image].stamps_ns, surveys[name].stamps_ns)
        for name in (topics.info, topics.depth, *pose_candidates(bag, STREAM_KINDS))
        if name
    }
    if surveys[topics.info].count < 0.5 * surveys[image].count:
        del skews[topics.info]  # a calibration may be sent once for all
    findings += _skew_findings(image, skews, (topics.info, topics.depth))
    sources = list(_sources(bag, surveys, around.tree, topics))
    best = max(sources, key=lambda source: source.posed, default=None)
    if best is not None and best.posed > 0:
        return CameraReport(
            image, topics.info, topics.depth, topics.frame_id, sources, skews, findings, options | best.options
        )
    if any("camera-extrinsics" in source.reason for source in sources):
        source = next(source for source in sources if "camera-extrinsics" in source.reason)
        options = options | source.options | {"camera_extrinsics": _EXTRINSICS}
    trouble = "no source of poses serves: " + "; ".join(s.reason for s in sources)
    if not sources:
        trouble = (
            "the bag has no poses: record /tf and /tf_static, or a topic of poses; or let build-map --sfm find them by "
            "the images"
        )
    return CameraReport(image, topics.info, topics.depth, topics.frame_id, sources, skews, findings, options, trouble)


def _sources(
    bag: BagReader, surveys: dict[str, TopicSurvey], tree: TransformTree, topics: CameraTopics
) -> Iterator[PoseSourceReport]:
    """The earlier is the better: TF from map, topics of poses in map, TF from the root of the camera's tree, others."""
    stamps = surveys[topics.image].stamps_ns
    chosen = stamps[np.linspace(0, len(stamps) - 1, min(len(stamps), _MOST_LOOKUPS)).astype(int)]
    root = tree.root_of(topics.frame_id)
    tried: list[tuple[str, dict[str, str], str]] = []
    if MAP_FRAME in tree.frames():
        tried.append((f"/tf from {MAP_FRAME}", {}, MAP_FRAME))
    topical = pose_candidates(bag, STREAM_KINDS) + pose_candidates(bag, (messages.PATH,))
    in_map = [name for name in topical if surveys[name].frames == (MAP_FRAME,)]
    tried += [(name, {"pose_topic": name}, "") for name in in_map]
    if root != MAP_FRAME and root in tree.frames():
        tried.append((f"/tf from {root}", {"pose_topic": "/tf", "map_frame": root}, root))
    tried += [(name, {"pose_topic": name}, "") for name in topical if name not in in_map]
    for name, options, map_frame in tried:
        topic = options.get("pose_topic", "/tf" if map_frame else name)
        asked = PoseOptions(topic, map_frame, "", topics.frame_id, None)
        try:
            if map_frame and tree.latest_ns(map_frame, topics.frame_id) is None:
                raise RecordingError(f"nothing moves between {map_frame} and {topics.frame_id}")
            poses, doubts = _poses(bag, tree, asked)
        except NreError as error:
            yield PoseSourceReport(name, options, 0.0, str(error))
            continue
        posed, reason = _share(poses, chosen)
        yield PoseSourceReport(name, options, posed, "; ".join(filter(None, [*doubts[:1], reason])))


def _poses(bag: BagReader, tree: TransformTree, asked: PoseOptions) -> tuple[PoseSource, list[str]]:
    if asked.topic not in bag.topics:
        raise RecordingError(f"the bag has no {asked.topic}: all its transforms are static")
    return find_poses(bag, tree, asked)


def _share(poses: PoseSource, stamps_ns: np.ndarray) -> tuple[float, str]:
    """Of the stamps that have a pose, and why the last of the others has none."""
    posed, reason = 0, ""
    for stamp_ns in stamps_ns:
        try:
            poses.at(int(stamp_ns))
            posed += 1
        except TransformError as error:
            reason = str(error)
    return posed / len(stamps_ns), reason


def _frame_findings(survey: TopicSurvey, tree: TransformTree, topics: CameraTopics) -> Iterator[str]:
    if len(survey.frames) > 1:
        names = " and ".join(map(repr, survey.frames))
        yield f"images of {survey.name} are of the frames {names}: two cameras on one topic; the first is used"
    frame = topics.frame_id
    if frame not in tree.frames():
        known = ", ".join(sorted(tree.frames())[:12]) or "none"
        yield (
            f"no transform leads to the camera's frame {frame!r} (frames in the bag: {known}); record /tf_static, or "
            f"give --camera-extrinsics '{_EXTRINSICS}'"
        )
        return
    try:
        if tree.latest_ns(BASE_FRAME, frame) is not None:
            yield (
                f"the transforms from {BASE_FRAME} to the camera {frame} come on /tf, so the camera may move on the "
                "robot: they are read at the stamp of each image"
            )
    except TransformError:
        return


def _skew_findings(image: str, skews: dict[str, tuple[float, float]], paired: tuple[str, str]) -> Iterator[str]:
    for name, (median, largest) in skews.items():
        if median > (_SKEW_MS if name in paired else _POSE_SKEW_MS):
            yield (
                f"the stamps of {name} are {median:.1f} ms (median, at most {largest:.1f} ms) from those of {image}: "
                "they are not synchronised, or of another clock"
            )


def _clocks(surveys: dict[str, TopicSurvey]) -> Iterator[str]:
    for survey in surveys.values():
        if survey.delay_s is None or survey.kind == messages.PATH:
            continue
        if not survey.stamps_ns.any():
            yield f"all header stamps of {survey.name} are zero: its driver sets none"
        elif abs(survey.delay_s) > _DELAY_S and survey.count > 1:
            yield (
                f"the header stamps of {survey.name} are {survey.delay_s:+.3f} s (median) from the time of recording: "
                "another clock than the recorder's"
            )


def _gaps(surveys: dict[str, TopicSurvey]) -> Iterator[str]:
    for survey in surveys.values():
        if survey.hz and survey.longest_gap_s > max(_GAP_S, _GAP_PERIODS / survey.hz):
            yield (
                f"{survey.name} has a gap of {survey.longest_gap_s:.1f} s, {survey.gap_at_s:.1f} s after its start "
                f"(usual: {1 / survey.hz:.3f} s)"
            )
