"""Imports point downwards: every module of the package is read, and each arrow held against the architecture."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nre_ros"

FLOOR = {"errors", "config", "share"}
FRAME = {"recordings.frame"}
BELOW = {
    "__init__": set(),
    "errors": set(),
    "config": {"errors"},
    "share": {"errors"},
    "geometry": FLOOR,
    "nre": FLOOR | {"geometry"},
    "features": FLOOR | {"geometry"},
    "recordings": FLOOR | {"geometry"},
    "simulation": FLOOR | {"geometry", "recordings"},
    "mapping": FLOOR | {"geometry", "nre", "features"} | FRAME,
    "localization": FLOOR | {"geometry", "nre", "features", "mapping"} | FRAME,
}
EVERYTHING = FLOOR | {"geometry", "nre", "features", "recordings", "simulation", "mapping", "localization"}
BELOW |= {
    "evaluation": EVERYTHING,
    "training": EVERYTHING | {"evaluation"},
    "ros": EVERYTHING | {"evaluation"},
    "cli": EVERYTHING | {"evaluation", "training"},
}
"""Part of the package, and what it may import besides itself."""

ROS_PACKAGES = {
    "rclpy",
    "cv_bridge",
    "tf2_ros",
    "tf2_py",
    "tf_transformations",
    "ament_index_python",
    "launch",
    "launch_ros",
}
ROS_PACKAGES |= {
    "builtin_interfaces",
    "rcl_interfaces",
    "std_srvs",
    "message_filters",
    "rosbag2_py",
    "rosidl_runtime_py",
}
PURE = {"geometry", "nre"}
IMPURE_STDLIB = {
    "datetime",
    "glob",
    "io",
    "logging",
    "os",
    "pathlib",
    "pickle",
    "random",
    "shutil",
    "socket",
    "subprocess",
}
IMPURE_STDLIB |= {"tempfile", "threading", "time"}

Import = tuple[str, int]
"""Dotted name of what is imported (``from a import b`` gives a.b), and its line."""


def imports(source: str, package: str) -> Iterator[Import]:
    """Every import of a module that lies in ``package``, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            yield from ((f"{stem}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "import_module"}:
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield str(name.value), node.lineno


def part_of(dotted: str) -> str:
    """``nre_ros.mapping.map.Map`` is of part ``mapping``; the package itself is ``__init__``."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def violations(source: str, module: str) -> list[str]:
    """What the module ``nre_ros.…`` with this source imports against the rules, a sentence each."""
    part = part_of(module)
    if part not in BELOW:
        return [f"{module}: part {part} has no place in the architecture; give it one in test_layers.py"]
    found = []
    for name, line in imports(source, module.rpartition(".")[0]):
        top = name.split(".")[0]
        if top == "nre_ros" and not _allowed(part, name):
            found.append(
                f"{module}:{line} imports {name}, but {part} sees only {', '.join(sorted(BELOW[part])) or 'nothing'}"
            )
        if part != "ros" and (top in ROS_PACKAGES or top.endswith("_msgs")):
            found.append(f"{module}:{line} imports {name}, but only ros imports rclpy and message types")
        if part in PURE and top not in {"nre_ros", "numpy", "torch"} and not _is_pure_stdlib(top):
            found.append(f"{module}:{line} imports {name}, but {part} holds torch and numpy only: no files, no clock")
    return found


def _allowed(part: str, name: str) -> bool:
    target = part_of(name)
    if target not in BELOW:  # `from nre_ros import __version__`
        return True
    if target == part or target in BELOW[part]:
        return True
    return any(f"{name}.".startswith(f"nre_ros.{allowed}.") for allowed in BELOW[part])


def _is_pure_stdlib(top: str) -> bool:
    return top in sys.stdlib_module_names and top not in IMPURE_STDLIB


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    dotted = ".".join(["nre_ros", *path.relative_to(PACKAGE).with_suffix("").parts])
    assert not violations(path.read_text(), dotted)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nre_ros.geometry.pose", "import nre_ros.mapping"),
        ("nre_ros.errors", "from nre_ros.config import param"),
        ("nre_ros.nre.msac", "from nre_ros.features import load_network"),
        ("nre_ros.mapping.builder", "def f():\n    from nre_ros.localization import Localizer"),
        ("nre_ros.mapping.builder", "from nre_ros.recordings import open_recording"),
        ("nre_ros.mapping.builder", "from nre_ros.recordings.bag import BagRecording"),
        ("nre_ros.recordings.bag", "from ..mapping import Map"),
        ("nre_ros.recordings.bag", "from nre_ros import mapping"),
        ("nre_ros.evaluation.metrics", "from nre_ros.cli import main"),
        ("nre_ros.ros.replay", "import nre_ros.cli.main"),
        ("nre_ros.cli.demo", "if True:\n    from nre_ros.ros.localizer_node import main"),
        ("nre_ros.cli.demo", "import importlib\nimportlib.import_module('nre_ros.ros.replay')"),
        ("nre_ros.cli.demo", "import rclpy"),
        ("nre_ros.recordings.images", "from sensor_msgs.msg import Image"),
        ("nre_ros.geometry.camera", "from pathlib import Path"),
        ("nre_ros.nre.p3p", "import scipy.optimize"),
        ("nre_ros.attic.old", "import torch"),
    ],
)
def test_an_arrow_that_points_up_is_seen(module, source):
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nre_ros.mapping.builder", "from nre_ros.recordings.frame import Frame"),
        ("nre_ros.recordings.bag", "from . import frame\nfrom .frame import Frame\nfrom ..errors import NreError"),
        ("nre_ros.ros.localizer_node", "import rclpy\nfrom sensor_msgs.msg import Image\nimport nre_ros.localization"),
        ("nre_ros.geometry.pose", "import math\nimport torch\nfrom nre_ros.geometry.camera import Camera"),
        ("nre_ros.cli.main", "from nre_ros import __version__"),
    ],
)
def test_what_the_architecture_allows_passes(module, source):
    assert violations(source, module) == []
