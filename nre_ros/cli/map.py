"""``nre_ros map``: look into a map, check it, merge it with another one, make it smaller."""

from __future__ import annotations

import argparse

from nre_ros.cli import map_check, map_info, map_merge, map_prune

_ACTIONS = {"info": map_info, "check": map_check, "merge": map_merge, "prune": map_prune}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("map", help="look into a map, check it, merge it with another, make it smaller")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module in _ACTIONS.values():
        module.add_parser(actions)


def run(args: argparse.Namespace) -> int:
    """Raises NreError; returns the action's exit code."""
    return _ACTIONS[args.action].run(args)
