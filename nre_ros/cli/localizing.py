"""What the commands that localize share: the map, the parameters, the localizer."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nre_ros.cli.network_options import add_network_arguments, network_values
from nre_ros.cli.recording_options import add_recording_arguments
from nre_ros.config import LocalizerConfig, parse_assignments, with_values

if TYPE_CHECKING:
    from nre_ros.localization import Localizer


def add_localizing_arguments(parser: argparse.ArgumentParser) -> None:
    add_recording_arguments(parser)
    parser.add_argument("--map", required=True, metavar="MAP", help="folder of the map")
    parser.add_argument("--split", metavar="ROLE", help="only the frames of this role, such as query")
    add_network_arguments(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of nre_ros config dump"
    )


def localizer_config(args: argparse.Namespace) -> LocalizerConfig:
    """The defaults with ``--set`` and what is said of the network; raises ConfigError."""
    return with_values(LocalizerConfig(), parse_assignments(LocalizerConfig(), args.set) | network_values(args))


def localizer_of(args: argparse.Namespace) -> Localizer:
    """Load what the arguments name; raises NreError."""
    from nre_ros.features import configured_network
    from nre_ros.localization import Localizer
    from nre_ros.localization.calibration import load_calibration
    from nre_ros.mapping import load_map

    config = localizer_config(args)
    network = configured_network(config)
    remark = load_calibration(config.accept.calibration).remark(network.weights_hash)
    if remark:
        print(remark, file=sys.stderr)
    return Localizer(load_map(args.map, network), network, config)
