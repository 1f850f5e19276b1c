"""``nre_ros inspect``: what a recording holds, what is wrong with it, and the command that makes a map of it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nre_ros.cli.figures import write_json
from nre_ros.errors import RecordingError

if TYPE_CHECKING:
    from nre_ros.recordings.bag_advice import CameraReport
    from nre_ros.recordings.bag_survey import TopicSurvey


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("inspect", help="what a recording holds, and the build-map command for it")
    parser.add_argument("recording", metavar="RECORDING", help="bag or folder, as for build-map")
    parser.add_argument("--json", metavar="FILE", help="write all figures")


def run(args: argparse.Namespace) -> int:
    """Raises NreError, after the report, where no map can be made of the recording as it is; returns 0."""
    from nre_ros.recordings.open import is_bag

    path = Path(args.recording)
    if not path.exists():
        raise RecordingError(f"recording {path} does not exist; check the path")
    figures = _bag(path) if is_bag(path) else _folder(path)
    if args.json:
        write_json(args.json, figures)
    if not figures["commands"]:
        raise RecordingError(f"no map can be made of {path}: {figures['trouble']}")
    return 0


def _bag(path: Path) -> dict[str, Any]:
    from nre_ros.recordings.bag_advice import advise
    from nre_ros.recordings.bag_reader import BagReader
    from nre_ros.recordings.bag_survey import survey_bag

    bag = BagReader(path)
    surveys = survey_bag(bag)
    cameras, findings = advise(bag, surveys)
    print(f"{path}: rosbag2, {sum(s.count for s in surveys.values())} messages on {len(surveys)} topics\n")
    for survey in surveys.values():
        print(_topic_line(survey))
    for camera in cameras:
        _print_camera(camera)
    _print_findings(findings)
    commands = [_command(path, camera.options) for camera in cameras if not camera.trouble]
    trials = [_command(path, c.options) for c in cameras if c.trouble and "camera_extrinsics" in c.options]
    _print_commands(commands)
    if trials and not commands:
        print("\nWith the camera's place on the robot filled in:\n  " + "\n  ".join(trials))
    return {
        "recording": str(path),
        "kind": "rosbag2",
        "topics": [_topic_figures(survey) for survey in surveys.values()],
        "cameras": [_camera_figures(camera) for camera in cameras],
        "findings": findings,
        "commands": commands,
        "trouble": "; ".join(camera.trouble for camera in cameras) or "it has no colour images",
    }


def _folder(path: Path) -> dict[str, Any]:
    from nre_ros.recordings import open_recording
    from nre_ros.recordings.shots import ShotRecording
    from nre_ros.recordings.tum import TumRecording

    recording = open_recording(path)
    assert isinstance(recording, TumRecording | ShotRecording), "every other recording is a bag"
    trouble = ""
    try:
        recording.require_poses()
    except RecordingError as error:
        trouble = str(error)
    roles = sorted(set(recording.roles.values()))
    figures: dict[str, Any] = {
        "recording": str(path),
        "kind": "TUM RGB-D folder" if isinstance(recording, TumRecording) else "images with a pose each",
        "images": recording.count(),
        "poses": recording.posed_count,
        "depth": recording.has_depth,
        "unit": recording.unit,
        "roles": {role: recording.count(role) for role in roles},
        "cameras": [f"{c.width}x{c.height} {c.model.value} fx {c.fx:.1f} fy {c.fy:.1f}" for c in recording.cameras],
        "findings": [*recording.problems, *getattr(recording, "remarks", [])],
    }
    for name in ("kind", "images", "poses", "depth", "unit", "roles"):
        print(f"{name:<8} {figures[name]}")
    for camera in figures["cameras"][:5]:
        print(f"camera   {camera}")
    if len(figures["cameras"]) > 5:
        print(f"         and {len(figures['cameras']) - 5} others")
    _print_findings(figures["findings"])
    split = " --split map" if "map" in roles else ""
    figures["commands"] = [] if trouble else [f"{_command(path, {})}{split}"]
    _print_commands(figures["commands"])
    return figures | {"trouble": trouble}


def _topic_line(survey: TopicSurvey) -> str:
    kind = survey.kind.replace("/msg/", "/")
    rate = f"{survey.hz:.1f} Hz" if survey.hz else ""
    frames = f"in {', '.join(survey.frames)}" if any(survey.frames) else ""
    return f"  {survey.name:<36} {kind:<42} {survey.count:>7} {rate:>9}  {survey.detail}  {frames}".rstrip()


def _topic_figures(survey: TopicSurvey) -> dict[str, Any]:
    names = ("name", "kind", "count", "hz", "longest_gap_s", "gap_at_s", "delay_s", "frames", "detail")
    return {name: getattr(survey, name) for name in names}


def _print_camera(camera: CameraReport) -> None:
    print(f"\ncamera {camera.image}" + (f" of the frame {camera.frame}" if camera.frame else ""))
    if camera.info:
        print(f"  calibration {camera.info}, depth {camera.depth or 'none'}")
    for name, (median, largest) in camera.skews_ms.items():
        print(f"  stamps to {name}: {median:.1f} ms median, {largest:.1f} ms at most")
    for source in camera.sources:
        print(f"  poses of {source.name}: {100 * source.posed:.0f} % of the images {_told(source.reason)}".rstrip())
    for finding in camera.findings:
        print(f"  ! {finding}")
    if camera.trouble:
        print(f"  ! {camera.trouble}")


def _told(reason: str) -> str:
    return f"({reason})" if reason else ""


def _camera_figures(camera: CameraReport) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(camera)


def _print_findings(findings: list[str]) -> None:
    if findings:
        print()
    for finding in findings:
        print(f"! {finding}")


def _print_commands(commands: list[str]) -> None:
    if commands:
        print("\nA map of it:\n  " + "\n  ".join(commands))


def _command(path: Path, options: dict[str, str]) -> str:
    words = ["nre_ros", "build-map", str(path), "-o", "MAP"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", value]
    return shlex.join(words)
