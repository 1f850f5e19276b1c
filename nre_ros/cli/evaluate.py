"""``nre_ros evaluate``: localize the images of a posed recording and measure the errors."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.localizing import add_localizing_arguments, localizer_of
from nre_ros.cli.recording_options import recording_of
from nre_ros.errors import RecordingError

if TYPE_CHECKING:
    from nre_ros.evaluation import Summary


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("evaluate", help="localize the images of a posed recording and measure the errors")
    add_localizing_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures and poses")
    parser.add_argument("--pictures", metavar="FOLDER", help="write overlay, trajectory and map as PNG")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0 when there are figures, however good."""
    from nre_ros.evaluation import localize_frames, summarise

    recording = recording_of(args)
    recording.require_poses()
    localizer = localizer_of(args)
    total = recording.count(args.split)
    results = list(localize_frames(localizer, tqdm(recording.frames(args.split), total=total, disable=None)))
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    answers = [answer for _, _, answer in results]
    if not answers:
        raise RecordingError(f"{recording.name} has no query; check the recording and --split")
    summary = summarise(answers, localizer.map.median_depth)
    print(_table(summary, localizer.map.unit))
    if args.json:
        write_json(args.json, summary.as_dict(answers))
    if args.pictures:
        from nre_ros.evaluation.pictures import write_pictures

        write_pictures(args.pictures, localizer.map, results)
        print(f"pictures in {args.pictures}")
    return 0


def _table(summary: Summary, unit: str) -> str:
    def number(value: float | None, digits: int) -> str:
        return "none accepted" if value is None else f"{value:.{digits}f}"

    rows = [("queries", str(summary.queries)), ("accepted", str(summary.accepted)), ("wrong", str(summary.wrong))]
    for name, value in summary.recall.items():
        rows.append((f"recall {name.replace('_', ' ')}", f"{100 * value:.1f} %"))
    for name, value in summary.recall_of_depth.items():
        rows.append((f"recall {name.replace('_', ' of the map depth, ')}", f"{100 * value:.1f} %"))
    for name, value in summary.recall_of_view_depth.items():
        rows.append((f"recall {name.replace('_', ' of the view depth, ')}", f"{100 * value:.1f} %"))
    rows.append(("median rotation", f"{number(summary.median_rotation_deg, 3)} deg"))
    rows.append(("median translation", f"{number(summary.median_translation, 4)} {unit}"))
    rows.append(("latency p50 / p95", f"{summary.latency_ms['p50']:.0f} / {summary.latency_ms['p95']:.0f} ms"))
    rows += [(f"  {stage}", f"{value:.0f} ms") for stage, value in summary.stages_ms.items() if stage != "total"]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)
