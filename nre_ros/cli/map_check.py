"""``nre_ros map check``: everything that is wrong with a map, a line each."""

from __future__ import annotations

import argparse


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = actions.add_parser("check", help="every array and reference; exit code 1 and a line for each fault")
    check.add_argument("map", metavar="MAP", help="folder of the map")


def run(args: argparse.Namespace) -> int:
    """Returns 0 for a sound map, 1 for one with faults."""
    from nre_ros.mapping.inspection import inspect_map

    report = inspect_map(args.map)
    for line in report.checked:
        print(f"checked  {line}")
    for line in report.remarks:
        print(f"remark   {line}")
    for line in report.faults:
        print(f"fault    {line}")
    print("bad" if report.faults else "ok")
    return 1 if report.faults else 0
