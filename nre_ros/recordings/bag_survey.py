"""What the topics of a bag hold: one pass over all messages, of which only the headers are read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from nre_ros.errors import RecordingError
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings.bag_reader import BagReader, Topic
from nre_ros.recordings.bag_topics import IMAGE_KINDS
from nre_ros.recordings.compressed import decode_compressed


@dataclass(frozen=True)
class TopicSurvey:
    """``stamps_ns`` are those of the headers, ascending; the times of recording for types without a header.

    ``hz`` is by the median time between two; ``longest_gap_s`` begins ``gap_at_s`` after the topic's first message.
    ``delay_s`` is the median time from the header's stamp to the recording, None without headers. ``detail`` is the
    size and encoding of images and calibrations.
    """

    name: str
    kind: str
    count: int
    hz: float
    longest_gap_s: float
    gap_at_s: float
    delay_s: float | None
    frames: tuple[str, ...]
    detail: str
    stamps_ns: np.ndarray


def survey_bag(bag: BagReader) -> dict[str, TopicSurvey]:
    """By topic, in the order of names; raises RecordingError where the bag is damaged."""
    logs: dict[str, list[int]] = {name: [] for name in sorted(bag.topics)}
    stamps: dict[str, list[int]] = {name: [] for name in logs}
    frames: dict[str, dict[str, None]] = {name: {} for name in logs}
    with_header = {name: _has_header(topic.kind) for name, topic in bag.topics.items()}
    for name, log_ns, raw in bag.logged(*logs):
        logs[name].append(log_ns)
        if with_header[name] and (head := _header(raw)) is not None:
            stamps[name].append(head[0])
            frames[name][head[1]] = None
    return {name: _survey(bag, bag.topics[name], logs[name], stamps[name], tuple(frames[name])) for name in logs}


def skew_ms(stamps_ns: np.ndarray, others_ns: np.ndarray) -> tuple[float, float]:
    """Median and largest time (ms) from each stamp to the nearest of the others, both ascending and not empty."""
    after = np.clip(np.searchsorted(others_ns, stamps_ns), 0, len(others_ns) - 1)
    before = np.clip(after - 1, 0, None)
    nearest = np.minimum(np.abs(others_ns[after] - stamps_ns), np.abs(others_ns[before] - stamps_ns)) * 1e-6
    return float(np.median(nearest)), float(nearest.max())


def _survey(bag: BagReader, topic: Topic, logs: list[int], stamps: list[int], frames: tuple[str, ...]) -> TopicSurvey:
    headed = len(stamps) == len(logs) > 0
    times = np.sort(np.array(stamps if headed else logs, np.int64))
    gaps_s = np.diff(times) * 1e-9
    at = int(gaps_s.argmax()) if len(gaps_s) else 0
    median_s = float(np.median(gaps_s)) if len(gaps_s) else 0.0
    delay = float(np.median((np.array(logs) - np.array(stamps)) * 1e-9)) if headed else None
    return TopicSurvey(
        topic.name,
        topic.kind,
        len(logs),
        1 / median_s if median_s > 0 else 0.0,
        float(gaps_s[at]) if len(gaps_s) else 0.0,
        float(times[at] - times[0]) * 1e-9 if len(gaps_s) else 0.0,
        delay,
        frames,
        _detail(bag, topic),
        times,
    )


def _has_header(kind: str) -> bool:
    known = messages.typestore().types.get(kind)
    return known is not None and next(iter(known.__dataclass_fields__), "") == "header"


def _header(raw: bytes) -> tuple[int, str] | None:
    """Stamp and frame_id of a message that begins with a std_msgs/Header; None for bytes that do not."""
    order = "<" if len(raw) > 1 and raw[1] & 1 else ">"
    try:
        seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", raw, 4)
        return seconds * 10**9 + nanoseconds, bytes(raw[16 : 16 + length]).rstrip(b"\0").decode()
    except (struct.error, UnicodeDecodeError):
        return None


def _detail(bag: BagReader, topic: Topic) -> str:
    if topic.kind not in (*IMAGE_KINDS, messages.CAMERA_INFO):
        return ""
    try:
        msg: Any = bag.first(topic.name)
        if topic.kind == messages.CAMERA_INFO:
            return f"{msg.width}x{msg.height} {msg.distortion_model or 'no model'}"
        if topic.kind == messages.IMAGE:
            return f"{msg.width}x{msg.height} {msg.encoding}"
        height, width = decode_compressed(msg.format, msg.data).shape[:2]
        return f"{width}x{height} {msg.format}"
    except RecordingError as error:
        return str(error)
