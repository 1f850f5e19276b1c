"""``nre_ros bench``: time and size on this machine, on the rendered world."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.network_options import add_network_arguments, network_values

if TYPE_CHECKING:
    from nre_ros.evaluation.bench import Tracked

MAP_FRAMES, QUERY_FRAMES = 24, 8
SMOOTH_FRAMES, SMOOTH_FROM, SMOOTH_OF = 16, 420, 1200
"""Consecutive frames of a slow walk, and where in it they begin."""
SIZE = (640, 480)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="time and size on this machine",
        description=f"Renders {MAP_FRAMES} frames of a world, maps them, and localizes {QUERY_FRAMES} others at "
        f"{SIZE[0]}x{SIZE[1]}; SIFT on the same images is timed in the same run. {SMOOTH_FRAMES} consecutive images "
        "are tracked by odometry, and searched for in the whole map for comparison.",
    )
    add_network_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="repetitions (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of torch (default: as torch likes)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0."""
    import cv2
    import torch

    from nre_ros.config import BuilderConfig, LocalizerConfig, with_values
    from nre_ros.evaluation.bench import time_localizer, time_sift, time_tracking
    from nre_ros.features import configured_network
    from nre_ros.localization import Localizer
    from nre_ros.mapping import MapBuilder, load_map, save_map
    from nre_ros.mapping.map_file import FILE_NAME
    from nre_ros.simulation import build_world, default_camera, mapping_run, query_run

    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    world, camera = build_world(0), default_camera(*SIZE)
    mapping = mapping_run(world, camera, MAP_FRAMES, 0)
    query = query_run(world, camera, QUERY_FRAMES, 0)
    frames = [mapping.frame(i) for i in tqdm(range(mapping.count), desc="rendering map", disable=None)]
    queries = [query.frame(i) for i in tqdm(range(query.count), desc="rendering queries", disable=None)]
    walk, places = query_run(world, camera, SMOOTH_OF, 0), range(SMOOTH_FROM, SMOOTH_FROM + SMOOTH_FRAMES)
    smooth = [walk.frame(i) for i in tqdm(places, desc="rendering a walk", disable=None)]

    network = configured_network(with_values(LocalizerConfig(), network_values(args)))
    builder = MapBuilder(network, BuilderConfig())
    start = time.perf_counter()
    for frame in frames:
        builder.add(frame)
    map_ = builder.build()
    build_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        save_map(map_, folder)
        size = (Path(folder) / FILE_NAME).stat().st_size
        start = time.perf_counter()
        load_map(folder)
        load_ms = 1e3 * (time.perf_counter() - start)
    localizer = Localizer(map_, network, LocalizerConfig())
    stages = time_localizer(localizer, queries, args.rounds)
    sift = time_sift(queries, args.rounds)
    tracked = time_tracking(localizer, smooth, args.rounds)

    points = min(LocalizerConfig().nre.max_points, map_.landmark_count)
    figures = {
        "device": str(network.device),
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "image": f"{SIZE[0]}x{SIZE[1]}",
        "points": points,
        "localize_ms": {name: {"p50": timing.p50, "p95": timing.p95} for name, timing in stages.items()},
        "sift_ms": {"p50": sift.p50, "p95": sift.p95},
        "total_over_sift": stages["total"].p50 / sift.p50,
        "tracking": None if tracked is None else asdict(tracked),
        "build_s_per_frame": build_s / len(frames),
        "map_load_ms": load_ms,
        "bytes_per_landmark": size / map_.landmark_count,
    }
    print(f"{figures['image']} on {network.device}, {torch.get_num_threads()} torch threads, {points} points")
    for name, timing in stages.items():
        print(f"  {name:<12} {timing.p50:7.1f} ms   p95 {timing.p95:7.1f} ms")
    print(
        f"  SIFT alone   {sift.p50:7.1f} ms   p95 {sift.p95:7.1f} ms: a query takes {figures['total_over_sift']:.1f} x"
    )
    print(_tracking_line(tracked))
    print(f"map: {build_s / len(frames):.2f} s a frame to build, {load_ms:.0f} ms to load, ", end="")
    print(f"{figures['bytes_per_landmark']:.0f} bytes a landmark")
    if args.json:
        write_json(args.json, figures)
    return 0


def _tracking_line(tracked: Tracked | None) -> str:
    if tracked is None:
        return "  tracking     no image of the walk could be tracked"
    here, anywhere = tracked.timing, tracked.whole_map
    return (
        f"  tracking     {here.p50:7.1f} ms   p95 {here.p95:7.1f} ms: {here.p50 / anywhere.p50:.0%} of the whole map's "
        f"{anywhere.p50:.1f} ms (p95 {anywhere.p95:.1f}) on the same {tracked.tracked} of {tracked.asked} images; "
        f"{tracked.error_deg:.3f} and {tracked.whole_map_error_deg:.3f} deg off"
    )
