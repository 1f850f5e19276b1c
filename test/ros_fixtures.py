"""What the tests of the nodes share; a module takes them with ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ros_world
from ros_harness import Ros, ros
from ros_rig import QUERY

from nre_ros.config import LocalizerConfig, with_values
from nre_ros.features import load_network
from nre_ros.localization import Localization, Localizer
from nre_ros.mapping import load_map


@pytest.fixture
def r() -> Iterator[Ros]:
    with ros() as harness:
        yield harness


@pytest.fixture(scope="session")
def map_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(ros_world.build_map(tmp_path_factory.mktemp("corner")))


@pytest.fixture(scope="session")
def offline(map_path: str) -> Localization:
    """What the localizer says of the query without ROS around it."""
    network = load_network()
    localizer = Localizer(load_map(map_path, network), network, with_values(LocalizerConfig(), ros_world.QUICK))
    answer = localizer.localize(QUERY.image_rgb, QUERY.camera)
    assert answer.accepted, answer.reason
    return answer
