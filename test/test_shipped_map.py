"""The map that comes with the package: whole, of the weights that come along, and good for its world."""

from __future__ import annotations

from pathlib import Path

from nre_ros.config import LocalizerConfig
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import pose_error
from nre_ros.localization import Localizer
from nre_ros.mapping import load_map
from nre_ros.mapping.map_file import check_map
from nre_ros.simulation import build_world, default_camera, query_run

HOUSE = Path(__file__).parents[1] / "maps" / "house"
QUERIES = 40


def test_the_shipped_map_answers_views_of_its_world(network: FeatureNetwork) -> None:
    check_map(HOUSE)
    localizer = Localizer(load_map(HOUSE, network), network, LocalizerConfig(device="cpu"))
    run = query_run(build_world(0), default_camera(640, 480), QUERIES, 0)
    for index in (3, 20, 33):
        frame = run.frame(index)
        answer = localizer.localize(frame.image_rgb, frame.camera)
        assert answer.accepted, answer.reason
        assert answer.map_from_cam is not None and frame.map_from_cam is not None
        angle_deg, distance_m = pose_error(answer.map_from_cam, frame.map_from_cam)
        assert angle_deg < 0.5 and distance_m < 0.03
