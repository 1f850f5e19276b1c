"""Where the commands that make a map of maps write it: never over what they read, unless asked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nre_ros.errors import ConfigError


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """-o and --replace; :func:`checked_output` reads them."""
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the new map")
    parser.add_argument("--replace", action="store_true", help="let OUT be one of the maps that are read")


def checked_output(args: argparse.Namespace, inputs: Sequence[str]) -> Path:
    """Raises ConfigError where OUT is an input and --replace is not given."""
    output = Path(args.output)
    if not args.replace and any(output.resolve() == Path(path).resolve() for path in inputs):
        raise ConfigError(f"{output} is a map to be read; name another folder, or give --replace to lose the old map")
    return output
