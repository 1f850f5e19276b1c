"""A small rendered world with exact poses and depth, for the demo and the tests."""

from nre_ros.simulation.render import Rendering, render
from nre_ros.simulation.runs import Run, base_from_camera, default_camera, mapping_run, query_run
from nre_ros.simulation.world import World, build_world

__all__ = [
    "Rendering",
    "Run",
    "World",
    "base_from_camera",
    "build_world",
    "default_camera",
    "mapping_run",
    "query_run",
    "render",
]
