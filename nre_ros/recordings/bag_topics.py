"""Which topics of a bag hold the image, its calibration, its depth and its pose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nre_ros.errors import RecordingError
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_reader import BagReader

IMAGE_KINDS = (messages.IMAGE, messages.COMPRESSED_IMAGE)
STREAM_KINDS = (messages.POSE, messages.POSE_WITH_COVARIANCE, messages.ODOMETRY)
"""Poses that come one by one."""
POSE_KINDS = (*STREAM_KINDS, messages.PATH)
NO_TOPIC = "none"
"""As ``depth_topic``: leave the depth out."""
_DEPTH_ENCODINGS = ("16UC1", "32FC1")


@dataclass(frozen=True)
class CameraTopics:
    """``depth`` is "" when there is none; ``frame_id`` is that of the images. ``remarks`` tell what was left out."""

    image: str
    info: str
    depth: str
    frame_id: str
    remarks: tuple[str, ...] = ()


def choose_camera_topics(bag: BagReader, image: str, info: str, depth: str) -> CameraTopics:
    """The topics named, and for those left empty the only candidates by type.

    Images encoded 16UC1 or 32FC1 are depth, all others colour. Where an image is stored both raw and compressed, the
    raw one is taken; a camera_info in the namespace of the image goes before others. What is of another camera, by its
    frame_id, is taken only where it is named. Raises RecordingError when a topic is missing, or several fit: it names
    them, and the option that chooses.
    """
    firsts = first_images(bag)
    colours, depths = split_colour_and_depth(firsts)
    found_image = choose_topic(bag, image, IMAGE_KINDS, "image_topic", colours)
    if not found_image:
        raise RecordingError(f"bag {bag.path} has no images; {_held(bag)}")
    frame_id = firsts[found_image].header.frame_id
    found_info = _info_of(bag, found_image, frame_id, info)
    if depth == NO_TOPIC:
        return CameraTopics(found_image, found_info, "", frame_id)
    depths = [name for name in depths if name != found_image]
    same = [name for name in depths if _same_frame(firsts[name].header.frame_id, frame_id)]
    found_depth = choose_topic(bag, depth, (messages.IMAGE,), "depth_topic", same)
    if found_depth == found_image:
        found_depth = ""
    remarks = [
        f"depth images of {name} are of the frame {firsts[name].header.frame_id!r}, the colour images of "
        f"{frame_id!r}, so they are left out; where they are registered to these, choose them with --depth-topic {name}"
        for name in depths
        if not found_depth
    ]
    return CameraTopics(found_image, found_info, found_depth, frame_id, tuple(remarks))


def first_images(bag: BagReader) -> dict[str, Any]:
    """The first message of each topic of images."""
    return {t.name: bag.first(t.name) for t in bag.topics.values() if t.kind in IMAGE_KINDS}


def pose_candidates(bag: BagReader, kinds: tuple[str, ...]) -> list[str]:
    return [t.name for t in bag.topics.values() if t.kind in kinds]


def choose_topic(bag: BagReader, wanted: str, kinds: tuple[str, ...], option: str, candidates: list[str]) -> str:
    """``wanted`` if the bag has it, else the only candidate, else ""; raises RecordingError as above."""
    flag = f"--{option.replace('_', '-')}"
    if wanted:
        topic = bag.topics.get(wanted)
        if topic is None:
            raise RecordingError(f"bag {bag.path} has no messages on {wanted} ({flag}); {_held(bag)}")
        if topic.kind not in kinds:
            raise RecordingError(f"{wanted} ({flag}) of bag {bag.path} is {topic.kind}, expected {' or '.join(kinds)}")
        return wanted
    if len(candidates) > 1:
        raise RecordingError(
            f"bag {bag.path} has several candidates for {option}: {', '.join(sorted(candidates))}; "
            f"choose one with {flag}"
        )
    return candidates[0] if candidates else ""


def _info_of(bag: BagReader, image: str, frame_id: str, wanted: str) -> str:
    """The topic of the calibration of an image topic; raises RecordingError."""
    kinds = (messages.CAMERA_INFO,)
    sibling = str(PurePosixPath(image.removesuffix("/compressed")).parent / "camera_info")
    infos = [t.name for t in bag.topics.values() if t.kind == messages.CAMERA_INFO]
    if wanted or sibling in infos:
        return choose_topic(bag, wanted, kinds, "camera_info_topic", [sibling])
    if not infos:
        raise RecordingError(
            f"bag {bag.path} has no camera_info, so {image} has no calibration; record {sibling} too; {_held(bag)}"
        )
    frames = {name: bag.first(name).header.frame_id for name in infos}
    same = [name for name, frame in frames.items() if _same_frame(frame, frame_id)]
    if not same:
        listed = ", ".join(f"{name} of {frame!r}" for name, frame in sorted(frames.items()))
        raise RecordingError(
            f"bag {bag.path} has no camera_info of the camera of {image}, whose frame is {frame_id!r}: it has "
            f"{listed}; record {sibling} too, or choose one of these with --camera-info-topic"
        )
    return choose_topic(bag, "", kinds, "camera_info_topic", same)


def _same_frame(a: str, b: str) -> bool:
    """A message that leaves its frame empty fits every other."""
    return not a or not b or a.removeprefix("/") == b.removeprefix("/")


def split_colour_and_depth(first_messages: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Topics of either, told apart by the encoding of their first message."""
    coding = {name: getattr(msg, "encoding", None) or msg.format for name, msg in first_messages.items()}
    depths = [name for name, code in coding.items() if code in _DEPTH_ENCODINGS]
    colours = {name for name, code in coding.items() if name not in depths and "compressedDepth" not in code}
    return [name for name in colours if name.removesuffix("/compressed") not in colours - {name}], depths


def _held(bag: BagReader) -> str:
    return "it has " + ", ".join(f"{t.name} ({t.kind})" for t in sorted(bag.topics.values(), key=lambda t: t.name)[:20])
