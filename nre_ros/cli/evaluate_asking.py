"""What ``nre_ros evaluate`` asks: the localizer or the node, about the recording and about other places."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.network_options import network_values
from nre_ros.cli.recording_options import bag_options_of, every_of
from nre_ros.config import LocalizerConfig, LocalizerNodeConfig, parse_assignments
from nre_ros.errors import RecordingError
from nre_ros.recordings import Recording, open_recording

if TYPE_CHECKING:
    from nre_ros.evaluation import Answer
    from nre_ros.evaluation.degradations import Degradation
    from nre_ros.evaluation.evaluated import Asked, Evaluation
    from nre_ros.localization import Localizer
    from nre_ros.mapping import Map
    from nre_ros.recordings import Frame


def evaluation_of(
    args: argparse.Namespace, recording: Recording, localizer: Localizer, chain: Sequence[Degradation]
) -> Evaluation:
    """Ask the localizer, or the node, about the recording and the negatives. Raises NreError."""
    from nre_ros.evaluation.evaluated import Asked, evaluate

    by_transform, notes = None, {"degrade": ",".join(map(str, chain))}
    frames = _posed(queries_of(args, recording, chain, "queries"))
    first = next(frames, None)
    if first is None:
        raise _nothing_asked(args, recording)
    frames = itertools.chain([first], frames)
    if args.through_node:
        from nre_ros.cli.through_node import answers_through_node, odometry_of

        parameters = parse_assignments(LocalizerConfig(), args.set) | network_values(args)
        parameters |= parse_assignments(LocalizerNodeConfig(), args.node_set)
        odometry = odometry_of(args.recording, bag_options_of(args))
        published = answers_through_node(frames, odometry, args.map, parameters)
        by_transform = published.by_transform
        asked = [Asked(a, camera) for a, camera in zip(published.by_pose, published.cameras, strict=True)]
        notes |= {"asked": "the node, over DDS", "link": published.link}
    else:
        asked = ask(localizer, frames)
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    return evaluate(
        recording.name,
        judged_map(args, localizer),
        asked,
        negatives=_negatives(args, localizer),
        align=args.align,
        by_transform=by_transform,
        notes=notes,
    )


def _negatives(args: argparse.Namespace, localizer: Localizer) -> dict[str, list[Answer]]:
    """Answers to the images of other places, by place: those of the same role where a place has roles."""
    answers = {}
    for path in args.negatives:
        other = open_recording(path)
        own = args if args.split in other.roles.values() else argparse.Namespace(**vars(args) | {"split": None})
        images = (replace(f, map_from_cam=None) for f in queries_of(own, other, (), f"negatives of {other.name}"))
        answers[other.name] = [item.answer for item in ask(localizer, images)]
        if not answers[other.name]:
            raise RecordingError(f"{path} has no image to be a negative; check its split and --every")
    return answers


def queries_of(
    args: argparse.Namespace, recording: Recording, chain: Sequence[Degradation], what: str
) -> Iterator[Frame]:
    """The frames that --split and --every leave, made worse, with a progress bar. They may be asked for again."""
    from nre_ros.evaluation.degradations import degrade

    frames, total = every_of(args, recording)
    bar = tqdm(frames, total=total, desc=what, disable=None)
    return (degrade(frame, chain) if chain else frame for frame in bar)


def ask(localizer: Localizer, frames: Iterable[Frame]) -> list[Asked]:
    """The localizer's answers, with its ranking of the keyframes; the network runs once for both."""
    from nre_ros.evaluation import localize_frames
    from nre_ros.evaluation.evaluated import Asked
    from nre_ros.evaluation.retrieval_recall import RetrievalJudge
    from nre_ros.localization import Localization
    from nre_ros.localization.localizer import View

    judge, rankings = RetrievalJudge(localizer.map), []

    def watch(frame: Frame, view: View, found: Localization) -> None:
        rankings.append(judge.ranking(view.features))

    return [Asked(a, f.camera, rankings[-1]) for f, _, a in localize_frames(localizer, frames, watch)]


def _posed(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Nothing can be said about the answer to a frame without a true pose: it is not asked about."""
    return (frame for frame in frames if frame.map_from_cam is not None)


def _nothing_asked(args: argparse.Namespace, recording: Recording) -> RecordingError:
    count = -(-recording.count(args.split) // args.every)
    if not count:
        return RecordingError(f"{recording.name} has no query; check the recording and --split")
    told = f": {recording.problems[-1]}" if recording.problems else "; check the split and the recording's poses"
    return RecordingError(f"none of {count} queries has a true pose to compare with{told}")


def judged_map(args: argparse.Namespace, localizer: Localizer) -> Map:
    return replace(localizer.map, unit=args.unit) if args.unit else localizer.map
