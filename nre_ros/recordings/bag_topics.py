"""Which topics of a bag hold the image, its calibration, its depth and its pose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nre_ros.errors import RecordingError
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_reader import BagReader

IMAGE_KINDS = (messages.IMAGE, messages.COMPRESSED_IMAGE)
POSE_KINDS = (messages.POSE, messages.POSE_WITH_COVARIANCE, messages.ODOMETRY)
NO_TOPIC = "none"
"""As ``depth_topic``: leave the depth out."""
_DEPTH_ENCODINGS = ("16UC1", "32FC1")


@dataclass(frozen=True)
class CameraTopics:
    """``depth`` is "" when there is none; ``frame_id`` is that of the images."""

    image: str
    info: str
    depth: str
    frame_id: str


def choose_camera_topics(bag: BagReader, image: str, info: str, depth: str) -> CameraTopics:
    """The topics named, and for those left empty the only candidates by type.

    Images encoded 16UC1 or 32FC1 are depth, all others colour. Where an image is stored both raw and compressed, the
    raw one is taken; a camera_info in the namespace of the image goes before others. Raises RecordingError when a
    topic is missing, or several fit: it names them, and the option that chooses.
    """
    firsts = {t.name: bag.first(t.name) for t in bag.topics.values() if t.kind in IMAGE_KINDS}
    colours, depths = _colours_and_depths(firsts)
    found_image = choose_topic(bag, image, IMAGE_KINDS, "image_topic", colours)
    if not found_image:
        raise RecordingError(f"bag {bag.path} has no images; {_held(bag)}")
    sibling = str(PurePosixPath(found_image.removesuffix("/compressed")).parent / "camera_info")
    infos = [t.name for t in bag.topics.values() if t.kind == messages.CAMERA_INFO]
    found_info = choose_topic(
        bag, info, (messages.CAMERA_INFO,), "camera_info_topic", [sibling] if sibling in infos else infos
    )
    if not found_info:
        raise RecordingError(
            f"bag {bag.path} has no camera_info, so {found_image} has no calibration; record {sibling} too; "
            f"{_held(bag)}"
        )
    without_depth = depth == NO_TOPIC
    found_depth = "" if without_depth else choose_topic(bag, depth, (messages.IMAGE,), "depth_topic", depths)
    if found_depth == found_image:
        found_depth = ""
    return CameraTopics(found_image, found_info, found_depth, firsts[found_image].header.frame_id)


def pose_candidates(bag: BagReader) -> list[str]:
    return [t.name for t in bag.topics.values() if t.kind in POSE_KINDS]


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


def _colours_and_depths(first_messages: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Topics of either, told apart by the encoding of their first message."""
    coding = {name: getattr(msg, "encoding", None) or msg.format for name, msg in first_messages.items()}
    depths = [name for name, code in coding.items() if code in _DEPTH_ENCODINGS]
    colours = {name for name, code in coding.items() if name not in depths and "compressedDepth" not in code}
    return [name for name in colours if name.removesuffix("/compressed") not in colours - {name}], depths


def _held(bag: BagReader) -> str:
    return "it has " + ", ".join(f"{t.name} ({t.kind})" for t in sorted(bag.topics.values(), key=lambda t: t.name)[:20])
