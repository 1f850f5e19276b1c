"""Hours of a robot's life on one node: ``make soak``, or ``python test/soak.py --minutes 5 --seed 3``.

Starts the real localizer node in a process of its own, and is the robot around it, over DDS. Prints a table of what was
measured; exit code 1 when something did not hold. The same seed sends the same bad messages: ``--first`` and ``--bad``
choose some of them again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import conftest
from ros_harness import ros
from soak_node import NodeProcess
from soak_robot import Robot, build_map, drive
from soak_scenarios import (
    Row,
    bag_loops,
    bursts,
    clock_jumps,
    drops,
    ends,
    fuzz,
    honesty,
    idle,
    long_replay,
    map_lost,
    recalibrated,
    recovery,
    transform_from_the_future,
    unplugged,
)

SCALE = 2
"""Times 320x240."""
VIEWS = 120
LAST_INDEX = 4.0


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    conftest.isolate_ros()
    with tempfile.TemporaryDirectory(prefix="nre_ros_soak_") as made:
        folder = Path(options.folder or made)
        folder.mkdir(parents=True, exist_ok=True)
        rows = soak(folder, options)
    failed = [row.what for row in rows if not row.ok]
    print(f"{len(rows) - len(failed)} of {len(rows)} as expected{'; not: ' + ', '.join(failed) if failed else ''}")
    if options.json:
        Path(options.json).write_text(
            json.dumps([asdict(row) for row in rows], indent=1, default=bool), encoding="utf-8"
        )
    return 1 if failed else 0


def soak(folder: Path, options: argparse.Namespace) -> list[Row]:
    started_s = time.monotonic()
    frames = drive(VIEWS, SCALE)
    map_path = build_map(folder / "map", LAST_INDEX, SCALE)
    print(f"map and {len(frames)} images after {time.monotonic() - started_s:.0f} s; node's log: {folder / 'node.txt'}")
    parameters = {"map_path": map_path, "autostart": True, "slow_latency": 10.0}

    def start() -> NodeProcess:
        return NodeProcess(folder / "node.txt", parameters)

    rows: list[Row] = []

    def note(new: list[Row]) -> None:
        for row in new:
            print(f"{'ok  ' if row.ok else 'FAIL'}  {row.what:<48}  {row.measured}  [{row.expected}]", flush=True)
        rows.extend(new)

    with ros() as r:
        robot = Robot(r, frames)
        with start() as node:
            robot.meet(node)
            note([recovery("first pose after the start", robot.recover(30.0))])
            numbers = range(options.first, options.first + options.bad)
            note(fuzz(robot, node, options.seed, numbers))
            for scenario in (
                idle,
                drops,
                bursts,
                bag_loops,
                clock_jumps,
                unplugged,
                recalibrated,
                transform_from_the_future,
            ):
                if node.alive:
                    note(scenario(robot, node))
            if node.alive:
                note(map_lost(robot, node, map_path))
            note([honesty(robot, "all trouble")])
            if node.alive:
                note(long_replay(robot, node, options.minutes))
            if not node.alive:
                note([Row("node", "dead; its last words: " + node.last_words(), "alive", False)])
        note(ends(robot, start))
        note([honesty(robot, "starts and ends")])
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--minutes", type=float, default=30.0, help="of the long replay (default: %(default)s)")
    parser.add_argument("--bad", type=int, default=1000, metavar="N", help="bad messages (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bad messages (default: %(default)s)")
    parser.add_argument("--folder", metavar="FOLDER", help="keep map and log there (default: a temporary one)")
    parser.add_argument("--json", metavar="FILE", help="write the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
