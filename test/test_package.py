"""What is declared is what is used, and what is built holds what is needed."""

from __future__ import annotations

import ast
import filecmp
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import nre_ros
from nre_ros.share import share_folder

ROOT = Path(__file__).parents[1]
NODES = {"nre_localizer": "nre_ros.ros.localizer_node", "nre_map_builder": "nre_ros.ros.map_builder_node"}
RELAYS = {**NODES, "nre_ros": "nre_ros.cli.main"}
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "yaml": "pyyaml"}
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "rosbags": "python3-rosbags-pip",
    "scipy": "python3-scipy",
    "torch": "python3-pytorch-pip",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
OPTIONAL = {"evo", "poselib", "pycolmap"}  # imported where used, with the install hint in the error: extras_require
NO_ROSDEP_KEY = {"safetensors"}
OTHER_ROS_PACKAGES = {"cv_bridge", "launch", "launch_ros", "rclpy", "std_srvs", "tf2_ros", "tf_transformations"}


def imported(*folders: str) -> set[str]:
    """Top-level names of everything imported there that is neither ours nor the standard library's."""
    names = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names.add(str(node.module).split(".")[0])
    return names - set(sys.stdlib_module_names) - {"nre_ros"}


def is_ros(name: str) -> bool:
    return name.endswith(("_msgs", "_interfaces")) or name in OTHER_ROS_PACKAGES


def declared_dependencies() -> set[str]:
    root = ET.parse(ROOT / "package.xml").getroot()
    return {str(e.text) for e in root if e.tag in {"depend", "exec_depend"}}


def setup_list(keyword: str) -> ast.expr:
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == keyword:
            return node.value
    raise AssertionError(f"setup.py has no {keyword}")


def normalized(requirement: str) -> str:
    return re.split(r"[<>=~! ;\[]", requirement)[0].lower().replace("_", "-")


def pinned() -> set[str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    return {normalized(line) for line in lines if "==" in line}


def test_versions_agree():
    assert ET.parse(ROOT / "package.xml").getroot().findtext("version") == nre_ros.__version__


def test_package_xml_names_every_ros_package_in_use():
    used = {name for name in imported("nre_ros", "launch") if is_ros(name)}
    assert used <= declared_dependencies()


def test_third_parties_are_required_by_pip_and_by_rosdep():
    used = {name for name in imported("nre_ros") if not is_ros(name)} - OPTIONAL
    required = {normalized(r) for r in ast.literal_eval(setup_list("install_requires"))}
    assert {DISTRIBUTIONS.get(name, name) for name in used} == required
    assert {ROSDEP_KEYS[name] for name in used - NO_ROSDEP_KEY} <= declared_dependencies()


def test_every_requirement_is_pinned():
    wanted = set(ast.literal_eval(setup_list("install_requires")))
    for extra in ast.literal_eval(setup_list("extras_require")).values():
        wanted |= set(extra)
    for name in ("ros.txt", "interfaces.txt"):
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        wanted |= {line for line in lines if line and not line.startswith("#")}
    assert {normalized(r) for r in wanted} <= pinned()


@pytest.mark.parametrize("name", RELAYS)
def test_relay_starts_a_module_that_has_a_main(name):
    relay = ROOT / "scripts" / name
    assert os.access(relay, os.X_OK)
    module = RELAYS[name]
    assert f"-m {module} " in relay.read_text()
    source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
    assert "def main(" in source
    assert 'if __name__ == "__main__":\n    sys.exit(main())' in source


def test_relay_runs_the_interpreter_of_its_own_environment(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib" / "nre_ros").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "nre_ros", tmp_path / "lib" / "nre_ros")
    (tmp_path / "bin" / "python3").symlink_to("/bin/echo")
    done = subprocess.run([tmp_path / "lib/nre_ros/nre_ros", "a b", "c"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "-m nre_ros.cli.main a b c\n"


def test_share_folder_holds_launch_and_config():
    assert (share_folder() / "config" / "fastdds_large_images.xml").exists()
    assert list((share_folder() / "launch").glob("*.launch.py"))


def test_installed_share_is_the_source_and_ament_finds_it():
    packages = pytest.importorskip("ament_index_python.packages", reason="ROS 2 is not installed")
    if not (Path(sys.prefix) / "share" / "nre_ros").exists():
        pytest.skip("the package is not installed into this environment; make setup does")
    share = Path(packages.get_package_share_directory("nre_ros"))
    for folder in ("launch", "config"):
        names = [path.name for path in (ROOT / folder).iterdir() if path.is_file()]
        _, changed, missing = filecmp.cmpfiles(ROOT / folder, share / folder, names, shallow=False)
        assert not changed + missing, "stale: run make setup"
    done = subprocess.run(
        [Path(sys.prefix) / "lib/nre_ros/nre_ros", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"nre_ros {nre_ros.__version__}\n", done.stderr


@pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools is not installed")
def test_wheel_holds_weights_launch_config_and_executable_relays(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("nre_ros", "launch", "config", "maps", "scripts", "resource"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "package.xml", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel"], cwd=tree, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    held = {info.filename: info.external_attr >> 16 for info in zipfile.ZipFile(wheel).infolist()}
    for path in (tree / "nre_ros").rglob("*"):
        if path.is_file():
            assert str(path.relative_to(tree)) in held
    data = f"nre_ros-{nre_ros.__version__}.data/data"
    assert f"{data}/share/ament_index/resource_index/packages/nre_ros" in held
    assert f"{data}/share/nre_ros/package.xml" in held
    for folder in ("launch", "config"):
        assert {f"{data}/share/nre_ros/{folder}/{path.name}" for path in (tree / folder).iterdir()} <= set(held)
    for relay in RELAYS:
        assert held[f"{data}/lib/nre_ros/{relay}"] & 0o111, f"{relay} is not executable"
    assert not [name for name in held if name.startswith(("test/", "launch/", "config/", "tools/"))]
