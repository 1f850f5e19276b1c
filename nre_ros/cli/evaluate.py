"""``nre_ros evaluate``: localize the images of a posed recording and measure the errors."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli.evaluate_asking import evaluation_of, judged_map, queries_of
from nre_ros.cli.figures import write_json
from nre_ros.cli.localizing import add_localizing_arguments, localizer_of
from nre_ros.cli.recording_options import add_every_argument, add_ground_truth_arguments, recording_of
from nre_ros.errors import NreError
from nre_ros.recordings import Recording

if TYPE_CHECKING:
    import numpy as np

    from nre_ros.evaluation import Answer
    from nre_ros.evaluation.degradations import Degradation
    from nre_ros.evaluation.evaluated import Evaluation
    from nre_ros.localization import Localizer


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="localize the images of a posed recording and measure the errors",
        description="Exit code 1 when nothing can be said, or when --baseline is beaten beyond noise.",
    )
    add_localizing_arguments(parser)
    add_every_argument(parser)
    add_ground_truth_arguments(parser)
    asking = parser.add_argument_group("what is asked")
    asking.add_argument(
        "--degrade",
        action="append",
        default=[],
        metavar="NAME[:STRENGTH]",
        help="make the queries worse: hard, extreme, or a chain such as blur:9,dark:0.35 "
        "(blur, dark, gamma, noise, grey, exposure, occlusion, jpeg, rotation, wrong_focal)",
    )
    asking.add_argument(
        "--negatives", nargs="+", default=[], metavar="RECORDING", help="other places: none may be answered"
    )
    asking.add_argument(
        "--through-node", action="store_true", help="replay over DDS into the real node and judge what it publishes"
    )
    asking.add_argument(
        "--node-set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of that node, such as tf_mode",
    )
    asking.add_argument(
        "--align", choices=("se3", "sim3"), help="fit the frame of the truth to the answers first (default: never)"
    )
    asking.add_argument(
        "--unit", choices=("metre", "arbitrary"), help="what the map's unit is, where the map does not know better"
    )
    told = parser.add_argument_group("what is told")
    told.add_argument("--json", metavar="FILE", help="write all figures and poses")
    told.add_argument("--report", metavar="FILE.html", help="write one page with plots, the worst ten and the map")
    told.add_argument("--trajectories", metavar="FOLDER", help="write estimated.tum, accepted.tum and truth.tum")
    told.add_argument("--pictures", metavar="FOLDER", help="write trajectory, map, health and overlay as PNG")
    told.add_argument("--baseline", metavar="OLD.json", help="compare with an earlier --json; worse: exit code 1")


def run(args: argparse.Namespace) -> int:
    """Raises NreError, for a result worse than the baseline, too; returns 0 when there are figures, however good."""
    from nre_ros.evaluation.baseline import read_baseline
    from nre_ros.evaluation.degradations import parse_degradations
    from nre_ros.evaluation.table import table

    chain = parse_degradations(args.degrade)
    baseline = read_baseline(args.baseline) if args.baseline else None
    recording = recording_of(args)
    recording.require_poses()
    localizer = localizer_of(args)
    evaluation = evaluation_of(args, recording, localizer, chain)
    print(table(evaluation))
    _write(args, evaluation, recording, localizer, chain)
    if baseline is not None:
        _compare(baseline, evaluation, args.baseline)
    return 0


def _write(
    args: argparse.Namespace,
    evaluation: Evaluation,
    recording: Recording,
    localizer: Localizer,
    chain: Sequence[Degradation],
) -> None:
    """All files that were asked for."""
    if args.json:
        write_json(args.json, evaluation.as_dict())
    if args.trajectories:
        from nre_ros.evaluation.trajectories import write_trajectories

        write_trajectories(args.trajectories, evaluation.answers)
    if not (args.pictures or args.report):
        return
    from nre_ros.evaluation.overlays import overlays_of
    from nre_ros.evaluation.pictures import typical_answer, write_image, write_pictures
    from nre_ros.evaluation.report import write_report
    from nre_ros.evaluation.worst import worst_answers

    map_ = judged_map(args, localizer)

    def again(answers: Sequence[Answer]) -> dict[int, np.ndarray]:
        return overlays_of(localizer, queries_of(args, recording, chain, "overlays"), answers)

    if args.pictures:
        write_pictures(args.pictures, map_, evaluation.answers)
        typical = typical_answer(evaluation.answers)
        if typical is not None:
            answer = evaluation.answers[typical]
            write_image(Path(args.pictures) / "overlay.png", again([answer])[answer.stamp_ns])
        print(f"pictures in {args.pictures}")
    if args.report:
        worst = worst_answers(evaluation.answers, evaluation.scale)
        write_report(args.report, evaluation, map_, worst, again(worst), _command_line(args))
        print(f"report in {args.report}")


def _command_line(args: argparse.Namespace) -> str:
    """As it was typed, or as another command says that it could have been."""
    return str(getattr(args, "told_as", shlex.join(["nre_ros", *sys.argv[1:]])))


def _compare(baseline: list[dict[str, object]], evaluation: Evaluation, path: str) -> None:
    """Raises NreError when something became worse."""
    from nre_ros.evaluation.baseline import compare, records_of

    changes = compare(baseline, records_of(evaluation.answers, evaluation.scale))
    print(f"against {path} (99 % intervals of the change):")
    for change in sorted(changes, key=lambda change: change.verdict):
        print(f"  {change.verdict:<7} {change}")
    worse = [str(change) for change in changes if change.verdict == "worse"]
    if worse:
        raise NreError(f"worse than {path} beyond noise: {', '.join(worse)}")
