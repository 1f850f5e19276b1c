"""``nre_ros map prune``: a smaller map of the same place."""

from __future__ import annotations

import argparse

from nre_ros.cli.map_output import add_output_arguments, checked_output
from nre_ros.errors import ConfigError


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    prune = actions.add_parser("prune", help="a smaller map: the landmarks that cover the images best")
    prune.add_argument("map", metavar="MAP", help="folder of the map")
    add_output_arguments(prune)
    prune.add_argument("--max-landmarks", type=int, metavar="N", help="keep at most so many")
    prune.add_argument("--max-mb", type=float, metavar="M", help="keep what fits into so many megabytes (10^6 bytes)")
    prune.add_argument("--min-observations", type=int, metavar="K", help="keep what so many keyframes see")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0. The map is written only when it is whole."""
    limits = {
        "--max-landmarks": args.max_landmarks,
        "--max-mb": args.max_mb,
        "--min-observations": args.min_observations,
    }
    if all(value is None for value in limits.values()):
        raise ConfigError(f"nothing to prune by; give {', '.join(limits)}, or several of them")
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}, expected more than 0")
    output = checked_output(args, [args.map])

    from nre_ros.mapping import save_map
    from nre_ros.mapping.map_file import check_map
    from nre_ros.mapping.prune import array_bytes, prune

    map_ = check_map(args.map)
    smaller = prune(
        map_,
        max_landmarks=args.max_landmarks,
        max_bytes=None if args.max_mb is None else int(args.max_mb * 1e6),
        min_observations=args.min_observations or 1,
    )
    save_map(smaller, output)
    print(
        f"{output}: {smaller.landmark_count} of {map_.landmark_count} landmarks, {smaller.keyframe_count} of "
        f"{map_.keyframe_count} keyframes, {array_bytes(smaller) / 1e6:.1f} of {array_bytes(map_) / 1e6:.1f} MB"
    )
    return 0
