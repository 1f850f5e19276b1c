"""``nre_ros demo``: rendered world, map, the real localizer node over DDS, and its answers against the truth."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from nre_ros.cli import build_map, simulate
from nre_ros.cli.children import Child, ended_by_sigterm, ros_environment
from nre_ros.config import LocalizerConfig
from nre_ros.errors import NreError, RecordingError
from nre_ros.evaluation.metrics import Answer, Summary, summarise
from nre_ros.evaluation.pictures import draw_map, draw_overlay, draw_trajectory, typical_answer, write_image
from nre_ros.evaluation.replayed import Query, answers_by_pose, answers_by_transform
from nre_ros.features import load_network
from nre_ros.localization import Localizer
from nre_ros.mapping import load_map
from nre_ros.recordings import Frame, open_recording
from nre_ros.recordings.bag_writer import IMAGE_TOPIC, INFO_TOPIC, ODOM_FRAME, TRUTH_TOPIC
from nre_ros.simulation import base_from_camera

OUTPUT = Path("demo_out")
START_TIMEOUT_S = 90.0
"""Longest wait for the node to load its map and subscribe."""

ANSWER_TIMEOUT_S = 10.0
"""Longest mean time for an image, replay and answer."""

LEAST_RECALL = 0.95
"""Share of the queries within 5 cm and 5 degrees that the demo promises."""

_STEPS = 4


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="rendered world, map, localizer node over DDS, comparison with the truth",
        description="Leaves recordings, map, report.txt, report.json, overlay.png, trajectory.png, map.png and the "
        "logs in a folder. Exit code 1 when a step fails or the answers are not as good as promised.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=OUTPUT, metavar="FOLDER", help="replaced (default: %(default)s)"
    )
    parser.add_argument(
        "--domain-id", type=int, default=1 + os.getpid() % 100, metavar="N", help="ROS_DOMAIN_ID (default: any)"
    )
    parser.add_argument(
        "--pace",
        choices=("answer", "stamps"),
        default="answer",
        help="replay each image when the one before is answered, or as recorded, which a slow machine cannot follow "
        "(default: %(default)s)",
    )
    simulate.add_world_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Raises NreError when a step fails or the promise is not kept; returns 0."""
    folder: Path = args.output
    log_folder = folder / "log"
    try:
        log_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(f"{folder} cannot hold the demo's files: {error}") from None
    started_s = time.monotonic()
    _tell(1, f"rendering {args.map_frames} mapping and {args.query_frames} query images of a world, seed {args.seed}")
    simulate.simulate(args, folder, overwrite=True)
    _tell(2, "building the map")
    _command(build_map, "build-map", str(folder / simulate.MAPPING), "-o", str(folder / "map"))
    _tell(3, "starting the localizer node and replaying the query run to it over DDS")
    record = _replay(folder, log_folder, args)
    _tell(4, "comparing what it published with the truth")
    wrong_or_missing = _report(folder, record)
    print(f"done in {time.monotonic() - started_s:.0f} s; recordings, map, report and pictures are in {folder}")
    if wrong_or_missing:
        raise NreError(f"the answers are not as good as promised: {wrong_or_missing}; see {folder / 'report.txt'}")
    return 0


def _tell(step: int, text: str) -> None:
    print(f"[{step}/{_STEPS}] {text}", flush=True)


def _command(module: Any, *words: str) -> None:
    """Run another command as a user would."""
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    module.run(parser.parse_args(words))


def _replay(folder: Path, log_folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Both processes from start to end; returns what the replay recorded. Raises NreError with a child's last words."""
    out = folder / "answers.json"
    out.unlink(missing_ok=True)
    environment = ros_environment(args.domain_id, log_folder)
    node_words = ["--ros-args", "-p", f"map_path:={folder / 'map'}", "-p", "autostart:=true"]
    node_words += ["-p", "use_sim_time:=true", "-r", f"image:={IMAGE_TOPIC}", "-r", f"camera_info:={INFO_TOPIC}"]
    replay_words = [str(folder / simulate.QUERY), "--record", str(out), "--clock"]
    replay_words += ["--pace", args.pace, "--wait-for", str(START_TIMEOUT_S)]
    node = Child("the localizer node", "nre_ros.ros.localizer_node", node_words, log_folder / "node.txt", environment)
    replay = Child("the replay", "nre_ros.ros.replay", replay_words, log_folder / "replay.txt", environment)
    limit_s = START_TIMEOUT_S + 60 + ANSWER_TIMEOUT_S * args.query_frames
    with ended_by_sigterm(), node, replay:
        replay.wait(limit_s, needs=[node])
        node.check_alive()
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return record


def _report(folder: Path, record: dict[str, Any]) -> str:
    """Write report and pictures, print the table; returns what falls short of the promise, or nothing."""
    frames = list(open_recording(folder / simulate.QUERY, pose_topic=TRUTH_TOPIC).frames())
    queries = _queries(folder, frames)
    network = load_network(device=LocalizerConfig().device)
    map_ = load_map(folder / "map", network)
    by_pose = answers_by_pose(record, queries, base_from_camera())
    by_transform = answers_by_transform(record, queries)
    poses, transforms = (summarise(answers, map_.median_depth) for answers in (by_pose, by_transform))
    latency_ms = record["latency_ms"]
    table = _table(poses, transforms, latency_ms)
    print(table)
    figures = {
        "pose": {**poses.as_dict(by_pose), "latency_ms": latency_ms},
        "transform": {**transforms.as_dict(by_transform), "latency_ms": latency_ms},
    }
    (folder / "report.txt").write_text(table + "\n", encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    draw_map(map_).savefig(folder / "map.png")
    draw_trajectory(map_, by_pose).savefig(folder / "trajectory.png")
    _overlay(folder / "overlay.png", Localizer(map_, network, LocalizerConfig()), frames, by_pose)
    return _shortfall(poses, transforms)


def _queries(folder: Path, frames: list[Frame]) -> list[Query]:
    """Truth and odometry of every image, from the bag."""
    odometry = open_recording(folder / simulate.QUERY, pose_topic="/tf", map_frame=ODOM_FRAME).frames()
    queries = []
    for frame, moved in zip(frames, odometry, strict=True):
        assert frame.map_from_cam is not None and moved.map_from_cam is not None
        queries.append(Query(frame.stamp_ns, frame.map_from_cam, odom_from_cam=moved.map_from_cam))
    return queries


def _overlay(path: Path, localizer: Localizer, frames: list[Frame], answers: list[Answer]) -> None:
    """The typical query once more, without ROS: the node publishes the pose, not how each landmark fared."""
    path.unlink(missing_ok=True)
    index = typical_answer(answers)
    if index is None:
        return
    found = localizer.localize(frames[index].image_rgb, frames[index].camera)
    if found.points is not None:
        write_image(path, draw_overlay(frames[index].image_rgb, found.points.uv_px, found.points.loss))


def _shortfall(poses: Summary, transforms: Summary) -> str:
    faults = []
    for name, summary in (("poses", poses), ("transforms", transforms)):
        recall = summary.recall["0.05m_5deg"]
        if recall < LEAST_RECALL:
            faults.append(
                f"{100 * recall:.0f} % of the {name} within 5 cm and 5 deg, expected {100 * LEAST_RECALL:.0f} %"
            )
        if summary.wrong:
            faults.append(f"{summary.wrong} {name} are wrong by more than 0.5 m or 10 deg")
    return ", ".join(faults)


def _table(poses: Summary, transforms: Summary, latency_ms: dict[str, float | None]) -> str:
    def number(value: float | None, scale: float, unit: str) -> str:
        return "-" if value is None else f"{scale * value:.2f} {unit}"

    columns = []
    for summary in (poses, transforms):
        columns.append(
            [
                str(summary.queries),
                f"{100 * summary.recall['0.05m_5deg']:.1f} %",
                f"{100 * summary.recall['0.25m_2deg']:.1f} %",
                number(summary.median_translation, 100, "cm"),
                number(summary.median_rotation_deg, 1, "deg"),
                str(summary.queries - summary.accepted),
                str(summary.wrong),
                number(latency_ms["p50"], 1, "ms"),
                number(latency_ms["p95"], 1, "ms"),
            ]
        )
    labels = ["queries", "within 5 cm, 5 deg", "within 25 cm, 2 deg", "median distance", "median angle"]
    labels += ["missed", "wrong (0.5 m, 10 deg)", "latency p50", "latency p95"]
    rows = [("", "PoseStamped", "TF map->odom"), *zip(labels, *columns, strict=True)]
    return "\n".join(f"{label:<22}{pose:>14}{transform:>14}" for label, pose, transform in rows)
