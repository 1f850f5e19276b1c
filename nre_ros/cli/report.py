"""``nre_ros report``: every evaluation scene, its map built, its queries and those of the other scenes asked."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from nre_ros.cli import build_map, evaluate
from nre_ros.cli.network_options import add_network_arguments
from nre_ros.errors import NreError, RecordingError
from nre_ros.recordings import open_recording


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "report",
        help="evaluate all scenes of a folder, as pages with an index",
        description="Builds each scene's map from its map frames, localizes its query frames and, as negatives, those "
        "of the other scenes. What is finished is kept: after an interruption the same command goes on.",
    )
    parser.add_argument(
        "--scenes",
        type=Path,
        metavar="FOLDER",
        help="recordings with the roles map and query (default: data/eval in $NRE_ROS_DATA)",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("report_out"), metavar="FOLDER")
    parser.add_argument("--only", nargs="+", default=[], metavar="SCENE", help="these scenes alone")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th query")
    parser.add_argument(
        "--without-unit", nargs="+", default=[], metavar="SCENE", help="scenes whose poses are not in metres"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was finished before")
    add_network_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Raises NreError when there are no scenes, or one cannot be evaluated; returns 0."""
    from nre_ros.evaluation.report_index import write_index

    scenes = _scenes(args)
    output: Path = args.output
    try:
        (output / "maps").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NreError(f"{output} cannot hold the report: {error}") from None
    for number, (name, folder) in enumerate(scenes.items(), 1):
        others = [other for other in scenes.values() if other != folder]
        print(f"[{number}/{len(scenes)}] {name}", flush=True)
        if args.fresh:
            shutil.rmtree(output / "maps" / name, ignore_errors=True)
            (output / f"{name}.json").unlink(missing_ok=True)
        _scene(args, name, folder, others)
    write_index(output, {name: json.loads((output / f"{name}.json").read_text()) for name in scenes})
    print(f"report in {output / 'index.html'}")
    return 0


def _scenes(args: argparse.Namespace) -> dict[str, Path]:
    """Folders by name. Raises RecordingError where none is a recording with both roles."""
    given = args.scenes or _default_scenes()
    folders = sorted(path for path in given.iterdir() if path.is_dir()) if given.is_dir() else []
    unknown = set(args.only) - {folder.name for folder in folders}
    if not folders or unknown:
        held = ", ".join(folder.name for folder in folders) or "no folder"
        raise RecordingError(
            f"{given} holds {held}; expected {', '.join(sorted(unknown)) or 'a folder for each scene'}"
        )
    chosen = [folder for folder in folders if not args.only or folder.name in args.only]
    for folder in chosen:
        roles = set(open_recording(folder).roles.values())
        if not {"map", "query"} <= roles:
            raise RecordingError(f"{folder} has the roles {sorted(roles)}, expected map and query; write its split.txt")
    return {folder.name: folder for folder in chosen}


def _default_scenes() -> Path:
    root = os.environ.get("NRE_ROS_DATA")
    if not root:
        raise RecordingError("NRE_ROS_DATA is not set; name a folder of scenes by --scenes, or set it to their data")
    return Path(root) / "data" / "eval"


def _scene(args: argparse.Namespace, name: str, folder: Path, others: list[Path]) -> None:
    from nre_ros.mapping.map_file import FILE_NAME

    output: Path = args.output
    network = [] if args.network is None else ["--network", args.network]
    network += [] if args.weights is None else ["--weights", *args.weights]
    map_path, figures = output / "maps" / name, output / f"{name}.json"
    if not (map_path / FILE_NAME).exists():  # a folder without it holds the keyframes of an interrupted build
        _command(build_map, "build-map", str(folder), "-o", str(map_path), "--split", "map", *network)
    if figures.exists():
        print(f"  {figures} is there already")
        return
    words = [str(folder), "--map", str(map_path), "--split", "query", "--every", str(args.every), *network]
    words += ["--unit", "arbitrary"] if name in args.without_unit else []
    if others:
        words += ["--negatives", *map(str, others)]
    unfinished = figures.with_suffix(".unfinished")
    _command(evaluate, "evaluate", *words, "--report", str(output / f"{name}.html"), "--json", str(unfinished))
    unfinished.rename(figures)


def _command(module: Any, *words: str) -> None:
    """Run another command as a user would."""
    print(f"  nre_ros {shlex.join(words)}", flush=True)
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers())
    module.run(parser.parse_args(words, argparse.Namespace(told_as=shlex.join(["nre_ros", *words]))))
