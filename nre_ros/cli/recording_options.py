"""The arguments by which commands name a recording: its path, and for bags its topics and frames."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

from nre_ros.errors import ConfigError
from nre_ros.geometry.pose_track import IDENTITY
from nre_ros.recordings import Recording, open_recording
from nre_ros.recordings.bag_poses import extrinsics_from_text
from nre_ros.recordings.frame import Frame
from nre_ros.recordings.ground_truth import ReposedRecording

_BAG_OPTIONS = {
    "image_topic": "colour images",
    "camera_info_topic": "their calibration",
    "depth_topic": "their depth; none: leave depth out",
    "pose_topic": "poses (Odometry, PoseStamped, PoseWithCovarianceStamped, Path), or /tf",
    "map_frame": "frame of the poses (default: map, else the root of the tree)",
    "camera_frame": "optical frame of the camera (default: that of the images)",
    "base_frame": "frame whose pose a PoseStamped gives (default: base_link)",
    "camera_extrinsics": "base_from_camera as 'x y z qx qy qz qw', for bags without tf_static",
}


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """RECORDING, and the options of bags; :func:`recording_of` reads them."""
    parser.add_argument("recording", metavar="RECORDING", help="bag or folder: see nre_ros inspect")
    add_bag_arguments(parser)


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of bags alone, for commands that name their recording otherwise."""
    group = parser.add_argument_group("bags", "found by type when left out")
    for name, text in _BAG_OPTIONS.items():
        group.add_argument(f"--{name.replace('_', '-')}", default="", metavar="NAME", help=text)


def bag_options_of(args: argparse.Namespace) -> dict[str, str]:
    """Those that were given, as keywords of :func:`open_recording`."""
    given = {name: getattr(args, name) for name in _BAG_OPTIONS}
    return {name: value for name, value in given.items() if value}


def recording_of(args: argparse.Namespace) -> Recording:
    """Open what the arguments name, posed by --ground-truth where that is given; raises RecordingError."""
    recording = open_recording(args.recording, **bag_options_of(args))
    file = getattr(args, "ground_truth", "")
    if not file:
        return recording
    extrinsics = args.ground_truth_extrinsics
    return ReposedRecording(recording, file, extrinsics_from_text(extrinsics) if extrinsics else IDENTITY)


def add_ground_truth_arguments(parser: argparse.ArgumentParser) -> None:
    """--ground-truth FILE and what it is of; :func:`recording_of` reads them."""
    group = parser.add_argument_group("poses from a file")
    group.add_argument(
        "--ground-truth",
        default="",
        metavar="FILE",
        help="instead of the recording's own: 'timestamp tx ty tz qx qy qz qw' (TUM), interpolated at the images' "
        "stamps, or 'image-name qw qx qy qz tx ty tz' of camera_from_map (COLMAP)",
    )
    group.add_argument(
        "--ground-truth-extrinsics",
        default="",
        metavar="NUMBERS",
        help="posed_from_camera as 'x y z qx qy qz qw', where FILE holds the poses of something else than the "
        "camera's optical frame",
    )


def add_unit_argument(parser: argparse.ArgumentParser) -> None:
    """--unit; :func:`unit_of` reads it."""
    parser.add_argument(
        "--unit",
        choices=("metre", "arbitrary"),
        default="",
        help="what the poses are in, where the recording does not know better: COLMAP models and transforms.json "
        "without depth are else taken to have no unit",
    )


def unit_of(args: argparse.Namespace, recording: Recording) -> str:
    """ "metre" or "arbitrary": as given, else as the recording says."""
    return args.unit or recording.unit


def add_every_argument(parser: argparse.ArgumentParser) -> None:
    """--every N; :func:`every_of` reads it."""
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="only every N-th of these frames, from the first"
    )


def every_of(args: argparse.Namespace, recording: Recording) -> tuple[Iterator[Frame], int]:
    """The frames that ``args.split`` and ``args.every`` leave, and how many there are at most. Raises ConfigError."""
    if args.every < 1:
        raise ConfigError(f"--every is {args.every}, expected 1 (all frames) or more")
    frames = itertools.islice(recording.frames(args.split), 0, None, args.every)
    return frames, -(-recording.count(args.split) // args.every)
