"""What every test needs: a ROS domain to itself, few threads, and the real data where it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import ros_world
import torch

from nre_ros.features import FeatureNetwork, load_network
from nre_ros.mapping import Map, load_map

ROOT = Path(__file__).parents[1]

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))


def isolate_ros() -> None:
    """For this process and its children: nobody else's nodes, checked message fields, images that get through.

    What the caller's environment sets is kept, to debug a test against tools in another shell.
    """
    environment = {
        # 1 to 101 are the domains whose ports lie below Linux's ephemeral ones
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_PYTHON_CHECK_FIELDS": "1",
        "ROS_LOG_DIR": str(ROOT / "log" / "test"),
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_large_images.xml"),
    }
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if sys.prefix not in prefixes:
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([sys.prefix, *filter(None, prefixes)])


isolate_ros()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with ``data/`` and ``golden/``, from the environment; skips without it."""
    given = os.environ.get("NRE_ROS_DATA")
    if not given:
        pytest.skip("NRE_ROS_DATA is not set: it names the folder with data/ and golden/")
    folder = Path(given)
    assert (folder / "data").is_dir(), f"NRE_ROS_DATA is {folder}, which has no folder data/"
    return folder


@pytest.fixture(scope="session")
def network() -> FeatureNetwork:
    return load_network(device="cpu")


@pytest.fixture(scope="session")
def corner_path(network: FeatureNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real map of a small textured corner, made of frames with depth; never written to."""
    return ros_world.build_map(tmp_path_factory.mktemp("corner_map"))


@pytest.fixture(scope="session")
def corner_map(corner_path: Path, network: FeatureNetwork) -> Map:
    return load_map(corner_path, network)
