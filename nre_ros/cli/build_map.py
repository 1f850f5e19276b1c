"""``nre_ros build-map``: a recording to a map, with the poses that it has or, with ``--sfm``, that its images give.

Keyframes go to a journal in the map's folder as they come. What ends the command, even a power cut, costs the frame at
hand: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.children import ended_by_sigterm
from nre_ros.cli.network_options import add_network_arguments, network_values
from nre_ros.cli.recording_options import (
    add_every_argument,
    add_ground_truth_arguments,
    add_recording_arguments,
    add_unit_argument,
    every_of,
    recording_of,
    unit_of,
)
from nre_ros.cli.sfm import PlacedFrames, add_sfm_arguments, check_sfm_arguments, place_frames
from nre_ros.config import BuilderConfig, parse_assignments, with_values
from nre_ros.errors import CalibrationError, MapError, RecordingError
from nre_ros.recordings import Recording
from nre_ros.recordings.frame import Frame

if TYPE_CHECKING:
    from nre_ros.features import FeatureNetwork
    from nre_ros.mapping.journal import KeyframeJournal


_NO_SOURCE = {"command", "recording", "output", "fresh", "network", "weights", "set", "refine_poses", "unit"}
"""Arguments that change no frame, or that the journal knows by other names."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("build-map", help="a recording to a map")
    add_recording_arguments(parser)
    add_ground_truth_arguments(parser)
    add_sfm_arguments(parser)
    add_unit_argument(parser)
    parser.add_argument(
        "-o", "--output", required=True, metavar="MAP", help="folder of the map; an old one is replaced"
    )
    parser.add_argument("--split", metavar="ROLE", help="only the frames of this role, such as map")
    add_every_argument(parser)
    add_network_arguments(parser)
    parser.add_argument(
        "--fresh", action="store_true", help="discard the keyframes of an interrupted run instead of going on from them"
    )
    parser.add_argument(
        "--refine-poses",
        action="store_true",
        help="bring poses and landmarks into agreement with the images (see pose_sigma_deg and pose_sigma_position of "
        "nre_ros config dump); the given poses stay where that does not help",
    )
    parser.add_argument("--frame-id", default="map", help="name of the map's frame (default: %(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of nre_ros config dump"
    )


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0. The map is written only when it is whole."""
    values = parse_assignments(BuilderConfig(), args.set) | network_values(args)
    config = with_values(BuilderConfig(), values | ({"refine_poses": True} if args.refine_poses else {}))
    check_sfm_arguments(args)
    recording = recording_of(args)
    with ended_by_sigterm():
        if not args.sfm:
            _require_poses(recording)
            return _build(args, config, recording, None)
        with _Stages() as stages:
            placed = place_frames(args, recording, config, stages)
        return _build(args, config, recording, placed)


def _build(args: argparse.Namespace, config: BuilderConfig, recording: Recording, placed: PlacedFrames | None) -> int:
    from nre_ros.features import configured_network
    from nre_ros.mapping import MapBuilder, save_map

    network = configured_network(config)
    with _journal(args, config, network, placed) as journal:
        unit = unit_of(args, recording) if placed is None else placed.unit
        builder = MapBuilder(network, config, frame_id=args.frame_id, unit=unit, keyframes=journal)
        refused: list[str] = []
        frames, total = every_of(args, recording)
        if placed is not None:
            frames, total = placed.posed(frames), len(placed.map_from_cam)
        with tqdm(total=total, unit="frame", desc="frames", disable=None) as bar:
            for frame in _rest(frames, journal, bar):
                try:
                    builder.add(frame)
                except (RecordingError, CalibrationError) as error:
                    refused.append(str(error))
                bar.update()
                if journal.trouble:
                    raise MapError(journal.trouble)
        told = recording.problems if placed is None else [p for p in recording.problems if "no pose" not in p]
        for problem in [*told, *refused]:
            print(problem, file=sys.stderr)
        if total and len(refused) == total:
            raise MapError(f"none of the {total} frames of {recording.name} can be mapped: {refused[0]}")
        with _Stages() as stages, _worthless_if_refused(journal):
            map_ = builder.build(stages)
        for remark in builder.remarks:
            print(remark, file=sys.stderr)
        save_map(map_, args.output)
        journal.remove()
    if builder.refinement is not None:
        print(builder.refinement.told(unit))
    print(
        f"{args.output}: {map_.landmark_count} landmarks, {map_.keyframe_count} keyframes of {total} frames, "
        f"{map_.observation_count} observations, unit {map_.unit}"
    )
    return 0


def _require_poses(recording: Recording) -> None:
    try:
        recording.require_poses()
    except RecordingError as error:
        raise RecordingError(f"{error}; or let --sfm find the poses by the images") from None


@contextmanager
def _journal(
    args: argparse.Namespace, config: BuilderConfig, network: FeatureNetwork, placed: PlacedFrames | None
) -> Iterator[KeyframeJournal]:
    """The journal of this run, with what an interrupted one left. Where it stays behind, stderr says so."""
    from nre_ros.mapping.journal import NAME, KeyframeJournal, OtherSession, count_keyframes, discard, session_facts

    folder = Path(args.output) / NAME
    if args.fresh:
        discard(folder)
    source = _source(args) | ({} if placed is None else {"poses": placed.digest()})
    try:
        journal = KeyframeJournal(folder, session_facts(network, config, **source), _complain)
    except OtherSession as error:
        raise OtherSession(
            f"{error}; give the same arguments as then to go on, or --fresh to discard those keyframes"
        ) from None  # fmt: skip
    if journal.resumed:
        _complain(f"found {journal.resumed} keyframes of an interrupted run in {folder}: goes on from there")
    try:
        yield journal
    except BaseException:
        if len(journal) == 0:
            journal.remove()
        elif folder.exists():
            _complain(f"{count_keyframes(folder)} keyframes are kept in {folder}: the same command goes on from there")
        raise
    finally:
        journal.close()


@contextmanager
def _worthless_if_refused(journal: KeyframeJournal) -> Iterator[None]:
    """Keyframes of which no map can be made are not worth going on from: what is wrong with them must change first."""
    try:
        yield
    except MapError:
        journal.remove()
        raise


def _rest(frames: Iterator[Frame], journal: KeyframeJournal, bar: tqdm[None]) -> Iterator[Frame]:
    """The frames after the last one of the journal."""
    if journal.resumed:
        last_ns = journal[-1].stamp_ns
        for frame in frames:
            bar.update()
            if frame.stamp_ns == last_ns:
                break
    yield from frames


def _source(args: argparse.Namespace) -> dict[str, str]:
    """What names the frames: the recording as it is now, and which of its frames are taken how."""
    path = Path(args.recording).resolve()
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    newest_ns = max((file.stat().st_mtime_ns for file in files), default=0)
    chosen = {name: value for name, value in vars(args).items() if name not in _NO_SOURCE and value}
    return {"recording": str(path), "recording changed at": str(newest_ns), "arguments": str(chosen)}


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


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
