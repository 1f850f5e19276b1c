"""``nre_ros map info``: what a map holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.figures import write_json


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("map", help="what a map holds")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="sizes, network, frame; the map is checked as it is loaded")
    info.add_argument("map", metavar="MAP", help="folder of the map")
    info.add_argument("--json", metavar="FILE", help="write the figures")


def run(args: argparse.Namespace) -> int:
    """Raises MapError; returns 0."""
    from nre_ros.mapping import load_map
    from nre_ros.mapping.map_file import FILE_NAME

    map_ = load_map(args.map)
    size = (Path(args.map) / FILE_NAME).stat().st_size
    per_keyframe = map_.arrays.keyframe_start.diff()
    figures: dict[str, object] = {
        "frame_id": map_.frame_id,
        "unit": map_.unit,
        "network": f"{map_.network_name} {map_.network_hash}",
        "digest": map_.digest,
        "landmarks": map_.landmark_count,
        "keyframes": map_.keyframe_count,
        "observations": map_.observation_count,
        "landmarks_per_keyframe_median": int(per_keyframe.median()),
        "landmarks_per_keyframe_least": int(per_keyframe.min()),
        "median_depth": round(map_.median_depth, 3),
        "bytes": size,
        "bytes_per_observation": round(size / map_.observation_count, 1),
    }
    for name, value in figures.items():
        print(f"{name:<30} {value}")
    if args.json:
        write_json(args.json, figures)
    return 0
