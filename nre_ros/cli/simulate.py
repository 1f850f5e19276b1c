"""``nre_ros simulate``: the rendered world's mapping run and query run as two rosbag2 recordings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from nre_ros.errors import RecordingError
from nre_ros.geometry.pose_track import rigid_from_pose, seconds
from nre_ros.recordings.bag_writer import BagWriter
from nre_ros.recordings.frame import Frame
from nre_ros.simulation import Run, base_from_camera, build_world, default_camera, mapping_run, query_run

MAPPING, QUERY, TRUTH = "mapping", "query", "query_truth.txt"
MAP_FRAMES, QUERY_FRAMES, SEED, SIZE = 80, 40, 0, (640, 480)
_LEAST_FRAMES = 2
_SIDES_PX = (64, 4096)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "simulate",
        help="write the rendered world's recordings as rosbag2",
        description=f"Writes FOLDER/{MAPPING} (images, depth, map -> base_link), FOLDER/{QUERY} (images, "
        f"odom -> base_link with drift) and FOLDER/{TRUTH} (map_from_cam of the query images, TUM format).",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace recordings that are there")
    add_world_arguments(parser)


def add_world_arguments(parser: argparse.ArgumentParser) -> None:
    """What the world and its two runs are to be; read by :func:`simulate`."""
    parser.add_argument("--seed", type=int, default=SEED, help="world and walks (default: %(default)s)")
    parser.add_argument(
        "--map-frames", type=_count, default=MAP_FRAMES, metavar="N", help="of the mapping run (default: %(default)s)"
    )
    parser.add_argument(
        "--query-frames", type=_count, default=QUERY_FRAMES, metavar="N", help="of the query run (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=_size, default=SIZE, metavar="WxH", help=f"of the images (default: {SIZE[0]}x{SIZE[1]})"
    )


def run(args: argparse.Namespace) -> int:
    """Raises RecordingError; returns 0."""
    simulate(args, args.output, overwrite=args.overwrite)
    print(f"{args.output}: {args.map_frames} mapping and {args.query_frames} query images, seed {args.seed}")
    return 0


def simulate(args: argparse.Namespace, folder: Path, overwrite: bool) -> None:
    """Write both recordings and the truth; raises RecordingError when they exist and are not to be overwritten."""
    taken = [name for name in (MAPPING, QUERY, TRUTH) if (folder / name).exists()]
    if taken and not overwrite:
        raise RecordingError(f"{folder} holds {', '.join(taken)} already; give another folder or --overwrite")
    world = build_world(args.seed)
    camera = default_camera(*args.size)
    mapping = mapping_run(world, camera, args.map_frames, args.seed)
    query = query_run(world, camera, args.query_frames, args.seed)
    _write_bag(folder / MAPPING, mapping, "map_tf", overwrite)
    poses = _write_bag(folder / QUERY, query, "odom_tf", overwrite)
    _write_truth(folder / TRUTH, poses)


def _write_bag(folder: Path, run: Run, pose_mode: str, overwrite: bool) -> list[str]:
    """Returns map_from_cam of every frame as a TUM line."""
    lines = []
    with BagWriter(folder, pose_mode=pose_mode, base_from_camera=base_from_camera(), overwrite=overwrite) as writer:
        for frame in tqdm(_rendered(run), total=run.count, unit="image", desc=folder.name, disable=None):
            writer.write_frame(frame)
            assert frame.map_from_cam is not None
            numbers = " ".join(f"{v:.9f}" for v in rigid_from_pose(frame.map_from_cam))
            lines.append(f"{seconds(frame.stamp_ns)} {numbers}")
    return lines


def _rendered(run: Run) -> Iterator[Frame]:
    """Frames in order, several at work at a time; threads share the world, and the heavy lifting is outside Python."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(run.frame, range(run.count))


def _write_truth(path: Path, lines: list[str]) -> None:
    text = "\n".join(["# timestamp tx ty tz qx qy qz qw (map_from_cam, optical frame, metres)", *lines]) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error}") from None


def _count(text: str) -> int:
    count = int(text)
    if count < _LEAST_FRAMES:
        raise argparse.ArgumentTypeError(f"{count} frames are too few, expected at least {_LEAST_FRAMES}")
    return count


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected WIDTHxHEIGHT such as 640x480")
    low, high = _SIDES_PX
    if not (low <= int(width) <= high and low <= int(height) <= high):
        raise argparse.ArgumentTypeError(f"{text} is out of bounds, expected sides of {low} to {high} pixels")
    return int(width), int(height)
