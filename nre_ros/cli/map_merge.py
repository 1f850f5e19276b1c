"""``nre_ros map merge``: two maps of one place become one."""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.localizing import localizer_config
from nre_ros.cli.map_output import add_output_arguments, checked_output
from nre_ros.cli.network_options import add_network_arguments
from nre_ros.cli.recording_options import add_bag_arguments, recording_of
from nre_ros.errors import ConfigError

if TYPE_CHECKING:
    from nre_ros.localization import Localizer
    from nre_ros.localization.session import SessionAlignment
    from nre_ros.mapping import Map
    from nre_ros.mapping.revisit import Revisit
    from nre_ros.recordings import Recording


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    merge = actions.add_parser("merge", help="a second session's map into a first one's frame, and both into one")
    merge.add_argument("first", metavar="MAP_A", help="folder of the map whose frame and unit stay")
    merge.add_argument("second", metavar="MAP_B", help="folder of the map that comes to it")
    add_output_arguments(merge)
    merge.add_argument(
        "--recording",
        required=True,
        metavar="RECORDING",
        help="what MAP_B was built from: its images are localized in MAP_A and described for retrieval there",
    )
    add_bag_arguments(merge)
    merge.add_argument("--images", type=int, default=60, metavar="N", help="localize so many (default: %(default)s)")
    merge.add_argument(
        "--age-out",
        type=int,
        metavar="N",
        help="leave out landmarks of MAP_A that N or more images of MAP_B looked at from near and none saw again",
    )
    merge.add_argument("--json", metavar="FILE", help="write the figures")
    add_network_arguments(merge)
    merge.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of nre_ros config dump"
    )


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0. The map is written only when it is whole."""
    for name, value, least in (("--images", args.images, 5), ("--age-out", args.age_out, 1)):
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}, expected {least} or more")
    output = checked_output(args, [args.first, args.second])
    config = localizer_config(args)

    from nre_ros.features import configured_network
    from nre_ros.localization import Localizer
    from nre_ros.mapping import check_network, save_map
    from nre_ros.mapping.map_file import check_map
    from nre_ros.mapping.merge import check_mergeable, join, same_landmarks
    from nre_ros.mapping.revisit import Revisit
    from nre_ros.mapping.subset import moved

    first, second = check_map(args.first), check_map(args.second)
    check_mergeable(first, second)
    network = configured_network(config)
    check_network(first, network, args.first)
    recording = recording_of(args)
    found = _align(Localizer(first, network, config), second, recording, args.images)
    figures = _alignment_figures(found, first)
    _print(figures)

    revisit = Revisit(first, moved(second, found.first_from_second), network)
    _look(revisit, second, recording)
    session = revisit.session()
    first, aged = (first, 0) if args.age_out is None else _aged(first, revisit, args.age_out)
    pairs = same_landmarks(first, session, found.slack)
    merged, fused = join(first, session, pairs)
    save_map(merged, output)
    joined: dict[str, object] = {
        "landmarks_fused": fused,
        "landmarks_added": session.landmark_count - fused,
        "landmarks_aged_out": aged,
        "landmarks": merged.landmark_count,
        "keyframes_added": session.keyframe_count,
        "keyframes_without_image": second.keyframe_count - session.keyframe_count,
        "keyframes": merged.keyframe_count,
    }
    _print(joined)
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    if args.json:
        write_json(args.json, figures | joined)
    return 0


def _align(localizer: Localizer, second: Map, recording: Recording, images: int) -> SessionAlignment:
    from nre_ros.localization.session import align_session, matching_frames

    step = max(second.keyframe_count // images, 1)
    views = itertools.islice(matching_frames(second, recording.frames()), 0, None, step)
    total = -(-second.keyframe_count // step)
    return align_session(localizer, second, tqdm(views, desc="localizing", total=total, disable=None))


def _look(revisit: Revisit, second: Map, recording: Recording) -> None:
    from nre_ros.localization.session import matching_frames

    views = matching_frames(second, recording.frames())
    for keyframe, frame in tqdm(views, desc="looking", total=second.keyframe_count, disable=None):
        revisit.add(keyframe, frame)


def _aged(first: Map, revisit: Revisit, looks: int) -> tuple[Map, int]:
    """The first map without what was looked at often enough and never seen again, and how much that is."""
    import torch

    from nre_ros.mapping.subset import subset

    gone = (revisit.looks >= looks) & (revisit.seen == 0)
    every = torch.ones(first.keyframe_count, dtype=torch.bool)
    return (subset(first, ~gone, every), int(gone.sum())) if bool(gone.any()) else (first, 0)


def _alignment_figures(found: SessionAlignment, first: Map) -> dict[str, object]:
    from nre_ros.geometry import Pose

    alignment = found.alignment
    inlier = alignment.inlier
    moved = Pose(found.first_from_second.rotation, found.first_from_second.translation)
    return {
        "images": found.images,
        "images_localized": len(inlier),
        "images_agreeing": int(inlier.sum()),
        "unit": first.unit,
        "residual_distance_median": round(float(alignment.distance[inlier].median()), 5),
        "residual_distance_largest": round(float(alignment.distance[inlier].max()), 5),
        "residual_angle_deg_median": round(float(alignment.angle_deg[inlier].median()), 4),
        "residual_angle_deg_largest": round(float(alignment.angle_deg[inlier].max()), 4),
        "landmarks_paired": found.pairs,
        "pair_distance_median": None if found.pairs == 0 else round(found.pair_distance, 5),
        "first_from_second_xyz": [round(v, 5) for v in moved.translation.tolist()],
        "first_from_second_quat_xyzw": [round(v, 7) for v in moved.quat_xyzw().tolist()],
        "scale": round(float(found.first_from_second.scale), 6),
        "scale_deviation": round(alignment.scale_deviation, 6),
    }


def _print(figures: dict[str, object]) -> None:
    for name, value in figures.items():
        print(f"{name:<30} {value}")
