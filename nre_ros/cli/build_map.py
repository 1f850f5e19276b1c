"""``nre_ros build-map``: a posed recording to a map."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from nre_ros.cli.network_options import add_network_arguments, network_values
from nre_ros.cli.recording_options import add_every_argument, add_recording_arguments, every_of, recording_of
from nre_ros.config import BuilderConfig, parse_assignments, with_values
from nre_ros.errors import CalibrationError, MapError, RecordingError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("build-map", help="a posed recording to a map")
    add_recording_arguments(parser)
    parser.add_argument(
        "-o", "--output", required=True, metavar="MAP", help="folder of the map; an old one is replaced"
    )
    parser.add_argument("--split", metavar="ROLE", help="only the frames of this role, such as map")
    add_every_argument(parser)
    add_network_arguments(parser)
    parser.add_argument("--frame-id", default="map", help="name of the map's frame (default: %(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of nre_ros config dump"
    )


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0. The map is written only when it is whole."""
    config = with_values(BuilderConfig(), parse_assignments(BuilderConfig(), args.set) | network_values(args))
    recording = recording_of(args)
    recording.require_poses()

    from nre_ros.features import configured_network
    from nre_ros.mapping import MapBuilder, save_map

    builder = MapBuilder(configured_network(config), config, frame_id=args.frame_id, unit=recording.unit)
    refused: list[str] = []
    frames, total = every_of(args, recording)
    with tqdm(total=total, unit="frame", desc="frames", disable=None) as bar:
        for frame in frames:
            try:
                builder.add(frame)
            except (RecordingError, CalibrationError) as error:
                refused.append(str(error))
            bar.update()
    for problem in [*recording.problems, *refused]:
        print(problem, file=sys.stderr)
    if total and len(refused) == total:
        raise MapError(f"none of the {total} frames of {recording.name} can be mapped: {refused[0]}")
    with _Stages() as stages:
        map_ = builder.build(stages)
    save_map(map_, args.output)
    print(
        f"{args.output}: {map_.landmark_count} landmarks, {map_.keyframe_count} keyframes of {total} frames, "
        f"{map_.observation_count} observations, unit {map_.unit}"
    )
    return 0


class _Stages:
    """A progress bar for each stage of the build."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._stage = ""

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._stage:
            if self._bar is not None:
                self._bar.close()
            self._bar, self._stage = tqdm(total=total, desc=stage, disable=None), stage
        self._bar.update(done - self._bar.n)
