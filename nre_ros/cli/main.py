"""The command ``nre_ros COMMAND ...``.

A command is a module of this package with two functions:

- ``add_parser(subparsers)`` adds its argparse parser, under the command's name;
- ``run(args) -> int`` does the work and returns the exit code. It raises NreError for what the user can mend.

Only the module of the command in use is imported, so that ``nre_ros --help`` does not wait for torch.
Exit codes: 0 success, 1 expected failure (one line on stderr), 2 usage, 130 interrupted, 141 reader gone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from types import ModuleType

from nre_ros import __version__
from nre_ros.errors import NreError

COMMANDS = {
    "demo": ("demo", "rendered world, map, localizer node over DDS, comparison with the truth"),
    "simulate": ("simulate", "write the rendered world's recordings as rosbag2"),
    "inspect": ("inspect_recording", "what a recording holds, and the build-map command for it"),
    "convert": ("convert", "any recording to a rosbag2"),
    "build-map": ("build_map", "a posed recording to a map"),
    "map": ("map", "look into a map, check it, merge it with another, make it smaller"),
    "localize": ("localize", "poses of the images of a recording in a map"),
    "evaluate": ("evaluate", "localize the images of a posed recording and measure the errors"),
    "report": ("report", "evaluate all scenes of a folder, as pages with an index"),
    "calibrate": ("calibrate", "how much support a pose needs to be believed, from images of other places"),
    "compare": ("compare", "NRE beside other estimators, on the same map and queries"),
    "features": ("features", "pictures of the descriptors of one or two images, and of loss maps between them"),
    "train": ("train", "train the descriptor network, or adapt it to one place"),
    "doctor": ("doctor", "what on this machine would stop the localizer, and what to do about it"),
    "bench": ("bench", "time and size on this machine"),
    "bench-estimator": ("bench_estimator", "the pose estimator beside others on synthetic loss maps"),
    "config": ("config_dump", "the parameters with defaults and descriptions, as ROS YAML"),
}
"""Command to module and its line in ``nre_ros --help``."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; ``argv`` leaves the program's name out. Returns the exit code; argparse exits by itself."""
    argv = sys.argv[1:] if argv is None else argv
    command = next((word for word in argv if not word.startswith("-")), "")
    parser, module = _parser(command)
    args = parser.parse_args(argv)
    assert module is not None, "argparse lets known commands through alone"
    try:
        code: int = module.run(args)
        sys.stdout.flush()
    except NreError as error:
        print(f"nre_ros {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # As with `nre_ros ... | head`; the interpreter's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _parser(command: str) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    """The whole parser, with the module of ``command``; the other commands are there by name and help line alone."""
    parser = argparse.ArgumentParser(prog="nre_ros", description="Camera relocalization by Neural Reprojection Error.")
    parser.add_argument("--version", action="version", version=f"nre_ros {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = None
    for name, (module_name, help_line) in COMMANDS.items():
        if name == command:
            chosen = importlib.import_module(f"nre_ros.cli.{module_name}")
            chosen.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=help_line)
    return parser, chosen


if __name__ == "__main__":
    sys.exit(main())
