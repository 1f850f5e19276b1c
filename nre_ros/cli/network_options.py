"""The arguments by which commands choose the network: short for its two parameters."""

from __future__ import annotations

import argparse


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """``--network`` and ``--weights``; :func:`network_values` reads them."""
    parser.add_argument("--network", metavar="NAME", help="network that describes the images, as parameter network")
    parser.add_argument(
        "--weights", nargs="+", metavar="FILE", help="files of its weights, as parameter weights, in any order"
    )


def network_values(args: argparse.Namespace) -> dict[str, object]:
    """Parameters that the arguments give, to be laid over those of ``--set``."""
    given = {"network": args.network, "weights": args.weights and ":".join(args.weights)}
    return {name: value for name, value in given.items() if value is not None}
