"""``nre_ros evaluate``: localize the images of a posed recording and measure the errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.localizing import add_localizing_arguments, localizer_of
from nre_ros.cli.network_options import network_values
from nre_ros.cli.recording_options import add_every_argument, every_of, recording_of
from nre_ros.config import LocalizerConfig, parse_assignments, with_values
from nre_ros.errors import RecordingError

if TYPE_CHECKING:
    from nre_ros.evaluation import Summary
    from nre_ros.evaluation.degradations import Degradation
    from nre_ros.evaluation.retrieval_recall import RetrievalJudge, RetrievalSummary, Retrieved
    from nre_ros.localization import Localizer
    from nre_ros.recordings import Frame


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("evaluate", help="localize the images of a posed recording and measure the errors")
    add_localizing_arguments(parser)
    add_every_argument(parser)
    parser.add_argument(
        "--degrade",
        action="append",
        default=[],
        metavar="NAME[:STRENGTH]",
        help="make the queries worse: hard, extreme, or a chain such as blur:9,dark:0.35 "
        "(blur, dark, gamma, noise, grey, exposure, occlusion, jpeg, rotation, wrong_focal)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures and poses")
    parser.add_argument("--pictures", metavar="FOLDER", help="write overlay, trajectory, map and health as PNG")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0 when there are figures, however good."""
    from nre_ros.evaluation import localize_frames, summarise
    from nre_ros.evaluation.degradations import parse_degradations
    from nre_ros.evaluation.retrieval_recall import summarise_retrieval

    chain = parse_degradations(args.degrade)
    recording = recording_of(args)
    recording.require_poses()
    frames, total = every_of(args, recording)
    localizer = localizer_of(args)
    judge = _judge(args, localizer)
    retrieved: list[Retrieved] = []
    queries = _judged(_degraded(tqdm(frames, total=total, disable=None), chain), judge, retrieved)
    results = list(localize_frames(localizer, queries))
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    answers = [answer for _, _, answer in results]
    if not answers:
        raise RecordingError(f"{recording.name} has no query; check the recording and --split")
    summary = summarise(answers, localizer.map.median_depth)
    retrieval = summarise_retrieval(retrieved)
    degraded = ",".join(map(str, chain))
    print(_table(summary, retrieval, localizer.map.unit, degraded))
    if args.json:
        found = {"degrade": degraded, "retrieval": retrieval.as_dict(retrieved)}
        write_json(args.json, found | summary.as_dict(answers))
    if args.pictures:
        from nre_ros.evaluation.pictures import write_pictures

        write_pictures(args.pictures, localizer.map, results)
        print(f"pictures in {args.pictures}")
    return 0


def _judge(args: argparse.Namespace, localizer: Localizer) -> RetrievalJudge:
    from nre_ros.evaluation.retrieval_recall import RetrievalJudge
    from nre_ros.features import configured_network

    config = with_values(LocalizerConfig(), parse_assignments(LocalizerConfig(), args.set) | network_values(args))
    return RetrievalJudge(localizer.map, configured_network(config), config.max_image_side)


def _degraded(frames: Iterable[Frame], chain: Sequence[Degradation]) -> Iterator[Frame]:
    from nre_ros.evaluation.degradations import degrade

    return (degrade(frame, chain) if chain else frame for frame in frames)


def _judged(frames: Iterable[Frame], judge: RetrievalJudge, into: list[Retrieved]) -> Iterator[Frame]:
    """The frames, as they pass by; what retrieval made of them goes into the list."""
    for frame in frames:
        judgement = judge.judge(frame)
        if judgement is not None:
            into.append(judgement)
        yield frame


def _table(summary: Summary, retrieval: RetrievalSummary, unit: str, degraded: str) -> str:
    def number(value: float | None, digits: int) -> str:
        return "none accepted" if value is None else f"{value:.{digits}f}"

    rows = [("degraded by", degraded)] if degraded else []
    rows += [("queries", str(summary.queries)), ("accepted", str(summary.accepted)), ("wrong", str(summary.wrong))]
    for name, value in summary.recall.items():
        rows.append((f"recall {name.replace('_', ' ')}", f"{100 * value:.1f} %"))
    for name, value in summary.recall_of_depth.items():
        rows.append((f"recall {name.replace('_', ' of the map depth, ')}", f"{100 * value:.1f} %"))
    for name, value in summary.recall_of_view_depth.items():
        rows.append((f"recall {name.replace('_', ' of the view depth, ')}", f"{100 * value:.1f} %"))
    for rank, value in retrieval.recall.items():
        rows.append((f"retrieval recall@{rank}", f"{100 * value:.1f} %"))
    if retrieval.outside:
        rows.append(("queries that share no keyframe's view", str(retrieval.outside)))
    rows.append(("median rotation", f"{number(summary.median_rotation_deg, 3)} deg"))
    rows.append(("median translation", f"{number(summary.median_translation, 4)} {unit}"))
    rows.append(("latency p50 / p95", f"{summary.latency_ms['p50']:.0f} / {summary.latency_ms['p95']:.0f} ms"))
    rows += [(f"  {stage}", f"{value:.0f} ms") for stage, value in summary.stages_ms.items() if stage != "total"]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)
