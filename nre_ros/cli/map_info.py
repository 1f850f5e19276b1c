"""``nre_ros map info``: what a map holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli.figures import write_json

if TYPE_CHECKING:
    from nre_ros.mapping import Map


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    info = actions.add_parser("info", help="sizes, network, frame, coverage; a picture from above")
    info.add_argument("map", metavar="MAP", help="folder of the map")
    info.add_argument("--json", metavar="FILE", help="write the figures")
    info.add_argument("--picture", metavar="FILE.png", help="landmarks and keyframes from above")


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns 0."""
    from nre_ros.mapping import load_map
    from nre_ros.mapping.map_file import FILE_NAME

    map_ = load_map(args.map)
    figures = _figures(map_, (Path(args.map) / FILE_NAME).stat().st_size)
    for name, value in figures.items():
        print(f"{name:<30} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if args.json:
        write_json(args.json, figures)
    if args.picture:
        from nre_ros.evaluation.map_picture import draw_top_view, write_figure

        write_figure(draw_top_view(map_), args.picture)
        print(f"picture in {args.picture}")
    return 0


def _figures(map_: Map, size: int) -> dict[str, object]:
    import numpy as np

    from nre_ros.mapping.coverage import COLUMNS, ROWS, coverage_of

    coverage = coverage_of(map_)
    low, high = np.percentile(map_.xyz_map, [1, 99], axis=0)
    return {
        "frame_id": map_.frame_id,
        "unit": map_.unit,
        "network": f"{map_.network_name} {map_.network_hash}",
        "cameras": [f"{c.width}x{c.height} {c.model.value} fx {c.fx:.1f} fy {c.fy:.1f}" for c in map_.cameras],
        "digest": map_.digest,
        "landmarks": map_.landmark_count,
        "keyframes": map_.keyframe_count,
        "observations": map_.observation_count,
        "landmarks_per_keyframe_median": int(coverage.landmarks.median()),
        "landmarks_per_keyframe_least": int(coverage.landmarks.min()),
        "image_cells": f"{COLUMNS} x {ROWS}",
        "cells_covered_median": round(float(coverage.share.median()), 3),
        "cells_covered_least": round(float(coverage.share.min()), 3),
        "keyframes_well_covered": round(float((~coverage.weak).double().mean()), 3),
        "median_depth": round(map_.median_depth, 3),
        "extent": [round(float(v), 2) for v in high - low],
        "bytes": size,
        "bytes_per_landmark": round(size / map_.landmark_count, 1),
    }
