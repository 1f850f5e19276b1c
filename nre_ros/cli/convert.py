"""``nre_ros convert``: any recording to a rosbag2."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from nre_ros.cli.recording_options import add_recording_arguments, add_unit_argument, recording_of, unit_of
from nre_ros.recordings.bag_writer import POSE_MODES, STORAGES, BagWriter
from nre_ros.recordings.shots import ShotRecording
from nre_ros.recordings.tum import TumRecording


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("convert", help="any recording to a rosbag2")
    add_recording_arguments(parser)
    add_unit_argument(parser)
    parser.add_argument("-o", "--output", required=True, metavar="BAG", help="folder of the new rosbag2")
    parser.add_argument("--split", metavar="ROLE", help="only the frames of this role, such as map or query")
    parser.add_argument("--storage", choices=STORAGES, default="mcap", help="file format (default: %(default)s)")
    parser.add_argument(
        "--pose-mode",
        choices=POSE_MODES,
        default="map_tf",
        help="what /tf tells: the pose, odometry that drifts, or nothing (default: %(default)s)",
    )
    parser.add_argument("--compressed", action="store_true", help="images as their JPEG or PNG files, else as PNG")
    parser.add_argument("--overwrite", action="store_true", help="replace BAG when it exists")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0."""
    recording = recording_of(args)
    unit = unit_of(args, recording)
    images, poses, depths = 0, 0, 0
    with BagWriter(args.output, args.storage, pose_mode=args.pose_mode, unit=unit, overwrite=args.overwrite) as writer:
        total = recording.count(args.split)
        for frame in tqdm(recording.frames(args.split), total=total, unit="image", disable=None):
            original = None
            if args.compressed and isinstance(recording, TumRecording | ShotRecording):
                original = recording.image_bytes(frame)
            role = recording.roles.get(frame.stamp_ns)
            writer.write_frame(frame, compressed=args.compressed, encoded=original, role=role)
            images += 1
            poses += frame.map_from_cam is not None
            depths += frame.depth_m is not None
    for problem in recording.problems:
        print(problem, file=sys.stderr)
    print(f"{args.output}: {images} images, {poses} with pose, {depths} with depth, unit {unit}")
    return 0
