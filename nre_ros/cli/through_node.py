"""``nre_ros evaluate --through-node``: the queries over DDS into the real node, and what it published."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nre_ros.cli.children import Child, ended_by_sigterm, ros_environment
from nre_ros.errors import NreError, RecordingError
from nre_ros.evaluation.metrics import Answer
from nre_ros.evaluation.replayed import Query, answers_by_pose, answers_by_transform
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings import Frame, Recording
from nre_ros.recordings.bag_writer import (
    BASE_FRAME,
    BASE_FROM_CAMERA,
    IMAGE_TOPIC,
    INFO_TOPIC,
    MAP_FRAME,
    ODOM_FRAME,
    BagWriter,
)
from nre_ros.recordings.open import is_bag

START_TIMEOUT_S = 120.0
BASE_FROM_CAM = Pose(BASE_FROM_CAMERA.rotation, torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64))
"""A lever and turned axes: an error in what the node makes of them, in its covariance too, must show."""
ANSWER_TIMEOUT_S = 35.0
"""Longest mean time for an image, replay and answer."""


@dataclass(frozen=True)
class NodeAnswers:
    """What the node published about each query: in its poses and in its transforms, which are ``parent -> child``."""

    by_pose: list[Answer]
    by_transform: list[Answer]
    cameras: list[Camera]
    link: str


def answers_through_node(
    frames: Iterable[Frame], odometry: Recording | None, map_path: str, parameters: dict[str, Any]
) -> NodeAnswers:
    """Write the posed frames to a bag without the answer in it, start a node of its own ROS domain, replay the bag at
    the pace of its answers, and read off what it published.

    With ``odometry`` (the same images, posed in the odometry's frame) the node publishes map -> odom, else map ->
    base_link. Raises NreError with a child's last words, and RecordingError when there is no posed frame.
    """
    with tempfile.TemporaryDirectory(prefix="nre_ros_evaluate_") as name:
        folder = Path(name)
        queries, cameras = _write_bag(folder / "queries", frames, odometry)
        link = (MAP_FRAME, ODOM_FRAME if odometry is not None else BASE_FRAME)
        mode = "map_to_odom" if odometry is not None else "map_to_base"
        record = _replay(folder, map_path, {"tf_mode": mode, **parameters}, len(queries))
        by_pose = answers_by_pose(record, queries, BASE_FROM_CAM)
        by_transform = answers_by_transform(record, queries, *link)
    return NodeAnswers(by_pose, by_transform, cameras, " -> ".join(link))


def odometry_of(path: str, options: dict[str, str]) -> Recording | None:
    """The bag's images posed in its odometry frame; None, and told, where the recording has none."""
    from nre_ros.recordings.bag import BagRecording

    if not is_bag(Path(path)):
        return None
    options = {name: value for name, value in options.items() if name not in ("pose_topic", "map_frame")}
    try:
        found = BagRecording(path, **options, pose_topic="/tf", map_frame=ODOM_FRAME)
        found.require_poses()
    except RecordingError as error:
        print(f"no odometry is replayed, so that the node publishes map -> base_link: {error}", file=sys.stderr)
        return None
    return found


def _write_bag(bag: Path, frames: Iterable[Frame], odometry: Recording | None) -> tuple[list[Query], list[Camera]]:
    moved = {} if odometry is None else _poses(odometry)
    links: dict[int, Pose] = {}
    queries, cameras = [], []
    mode = "none" if odometry is None else "odom_tf"
    with BagWriter(bag, pose_mode=mode, base_from_camera=BASE_FROM_CAM, map_from_odom=links.__getitem__) as writer:
        for frame in frames:
            assert frame.map_from_cam is not None
            odom_from_cam = BASE_FROM_CAM if odometry is None else moved.get(frame.stamp_ns)
            if odom_from_cam is None:  # an image before the odometry began
                continue
            links[frame.stamp_ns] = frame.map_from_cam @ odom_from_cam.inverse()
            writer.write_frame(replace(frame, depth_m=None))
            queries.append(Query(frame.stamp_ns, frame.map_from_cam, odom_from_cam, frame.name))
            cameras.append(frame.camera)
    return queries, cameras


def _poses(odometry: Recording) -> dict[int, Pose]:
    return {f.stamp_ns: f.map_from_cam for f in odometry.frames() if f.map_from_cam is not None}


def _replay(folder: Path, map_path: str, parameters: dict[str, Any], count: int) -> dict[str, Any]:
    out = folder / "answers.json"
    environment = ros_environment(1 + os.getpid() % 100, folder)
    given = {"map_path": str(Path(map_path).resolve()), "autostart": True, "use_sim_time": True, **parameters}
    words = ["--ros-args", "-r", f"image:={IMAGE_TOPIC}", "-r", f"camera_info:={INFO_TOPIC}"]
    for name, value in given.items():
        words += ["-p", f"{name}:={json.dumps(value)}"]
    replay_words = [str(folder / "queries"), "--record", str(out), "--clock", "--pace", "answer"]
    replay_words += ["--wait-for", str(START_TIMEOUT_S)]
    node = Child("the localizer node", "nre_ros.ros.localizer_node", words, folder / "node.txt", environment)
    replay = Child("the replay", "nre_ros.ros.replay", replay_words, folder / "replay.txt", environment)
    with ended_by_sigterm(), node, replay:
        replay.wait(START_TIMEOUT_S + 60 + ANSWER_TIMEOUT_S * count, needs=[node])
        node.check_alive()
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if not record["poses"] and len(record["unanswered"]) == len(record["images"]):
        raise NreError(f"the node answered none of {count} images; {node.last_words()}")
    return record
