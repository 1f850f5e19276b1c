"""``nre_ros bench``: time and size on this machine, on the rendered world."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from nre_ros.cli.figures import write_json
from nre_ros.cli.network_options import add_network_arguments, network_values

MAP_FRAMES, QUERY_FRAMES = 24, 8
SIZE = (640, 480)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="time and size on this machine",
        description=f"Renders {MAP_FRAMES} frames of a world, maps them, and localizes {QUERY_FRAMES} others at "
        f"{SIZE[0]}x{SIZE[1]}; SIFT on the same images is timed in the same run.",
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
    from nre_ros.evaluation.bench import time_localizer, time_sift
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
    stages = time_localizer(Localizer(map_, network, LocalizerConfig()), queries, args.rounds)
    sift = time_sift(queries, args.rounds)

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
    print(f"map: {build_s / len(frames):.2f} s a frame to build, {load_ms:.0f} ms to load, ", end="")
    print(f"{figures['bytes_per_landmark']:.0f} bytes a landmark")
    if args.json:
        write_json(args.json, figures)
    return 0
