"""The two recordings of the demo: a calm mapping run with depth, and a query run as life would have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.geometry import Camera, Pose
from nre_ros.recordings.frame import Frame
from nre_ros.simulation.render import render
from nre_ros.simulation.sensor import Exposure, develop, drift
from nre_ros.simulation.trajectory import BASE_HEIGHT_M, Trajectory, mapping_walk, query_walk
from nre_ros.simulation.world import World

MAPPING_HZ = 5.0
QUERY_HZ = 1.0
MAPPING_TOUR_S, QUERY_TOUR_S = 15.8, 39.0
"""A run with fewer frames than fit ends before the tour does; one with more walks slower."""

START_NS = 1_700_000_000_000_000_000
"""Stamp of the first mapping frame; the query run starts an hour later."""

_HOUR_NS = 3_600_000_000_000
_CAMERA_TILT_DEG = 4.0
_BLUR_STEP_PX = 1.4
_MOST_SUB_POSES = 8
_SMOOTH_BY_THEMSELVES = 3
"""So many sub-poses average away the jagged edges."""

_PERSON_AHEAD_S = 4.4
_PERSON_KEEPS_OFF_M = 1.3


def default_camera(width: int, height: int) -> Camera:
    """A 63 degree camera with mild barrel distortion, whatever the image size."""
    focal = 525.0 * width / 640
    distortion = (-0.06, 0.02, 0.0006, -0.0004, 0.0)
    return Camera(width, height, focal, focal * 1.002, width / 2 - 1.7, height / 2 + 2.3, distortion=distortion)


def base_from_camera() -> Pose:
    """The camera's optical frame on the robot: 1.2 m above the floor, looking forward and a little down."""
    tilt = np.deg2rad(_CAMERA_TILT_DEG)
    forward = [np.cos(tilt), 0, -np.sin(tilt)]
    down = [-np.sin(tilt), 0, -np.cos(tilt)]
    columns = torch.tensor(np.array([[0, -1, 0], down, forward]).T)
    return Pose(columns, torch.tensor([0.12, 0.0, 1.2 - BASE_HEIGHT_M], dtype=torch.float64))


@dataclass(frozen=True)
class Run:
    """Frames of one walk, each made when it is asked for and always the same: ``frame(i)`` for i below ``count``.

    Frames carry the true ``map_from_cam`` at the middle of the exposure.
    """

    world: World
    camera: Camera
    count: int
    seed: int
    rate_hz: float
    start_ns: int
    walk: Trajectory
    exposures: tuple[Exposure, ...]
    with_depth: bool
    with_person: bool

    def frame(self, index: int) -> Frame:
        """Render one frame: some tenths of a second, several times that where motion blurs it."""
        time_s = index / self.rate_hz
        exposure = self.exposures[index]
        person = self._map_from_person(time_s) if self.with_person else None
        times = time_s + exposure.shutter_s * self._sub_exposures(time_s, exposure.shutter_s)
        smooth = len(times) < _SMOOTH_BY_THEMSELVES
        views = [render(self.world, self.camera, self._map_from_cam(t), person, smooth_edges=smooth) for t in times]
        radiance = np.mean([v.radiance for v in views], axis=0)
        return Frame(
            stamp_ns=self.start_ns + round(time_s * 1e9),
            image_rgb=develop(radiance, exposure, np.random.default_rng([self.seed, self.start_ns, index])),
            camera=self.camera,
            map_from_cam=self._map_from_cam(time_s),
            depth_m=views[len(views) // 2].depth_m if self.with_depth else None,
            name=f"{index:06d}",
        )

    def _map_from_cam(self, time_s: float) -> Pose:
        return self.walk.map_from_base(time_s) @ base_from_camera()

    def _sub_exposures(self, time_s: float, shutter_s: float) -> np.ndarray:
        """Moments to average, as shares of the shutter time about its middle: more of them the more the view moves."""
        ends = [self._map_from_cam(time_s + side * shutter_s / 2) for side in (-1, 1)]
        twist = (ends[0].inverse() @ ends[1]).log()
        # a turn moves all pixels alike; a step moves those of things two metres away by as much as half as many radians
        moved_px = self.camera.fx * float(twist[:3].norm() + twist[3:].norm() / 2)
        count = int(np.clip(np.ceil(moved_px / _BLUR_STEP_PX), 1, _MOST_SUB_POSES))
        return (np.arange(count) + 0.5) / count - 0.5

    def _map_from_person(self, time_s: float) -> Pose | None:
        """Someone who walks ahead, now on this side, now on that; None when too near or past the end of the run."""
        ahead_s = time_s + _PERSON_AHEAD_S
        if ahead_s > self.walk.duration_s:
            return None
        here, there = (self.walk.map_from_base(t).translation for t in (time_s, ahead_s))
        onward = there - self.walk.map_from_base(ahead_s - 0.4).translation
        heading = float(torch.atan2(onward[1], onward[0]))
        aside = 0.25 * np.sin(0.55 * time_s)
        x, y = float(there[0]) - aside * np.sin(heading), float(there[1]) + aside * np.cos(heading)
        if np.hypot(x - float(here[0]), y - float(here[1])) < _PERSON_KEEPS_OFF_M:
            return None
        faces = Pose.exp(torch.tensor([0, 0, heading + np.pi / 2, 0, 0, 0], dtype=torch.float64))
        return Pose(faces.rotation, torch.tensor([x, y, 0.0], dtype=torch.float64))


def mapping_run(world: World, camera: Camera, count: int, seed: int) -> Run:
    """Frames at 5 Hz with exact depth, sharp and evenly exposed; 80 of them see all rooms."""
    walk = mapping_walk(max((count - 1) / MAPPING_HZ, MAPPING_TOUR_S), seed)
    exposures = (Exposure(grain=0.7),) * count
    return Run(world, camera, count, seed, MAPPING_HZ, START_NS, walk, exposures, with_depth=True, with_person=False)


def query_run(world: World, camera: Camera, count: int, seed: int) -> Run:
    """Frames at 1 Hz of another walk: blurred by motion, of changing exposure, noisy, and with a person in the way.

    40 of them follow the whole tour.
    """
    walk = query_walk(max((count - 1) / QUERY_HZ, QUERY_TOUR_S), seed)
    rng = np.random.default_rng([seed, 3])
    stops, curve = 0.7 * drift(rng, count, 6), 0.12 * drift(rng, count, 9)
    shutters, grains = rng.uniform(0.004, 0.024, count), rng.uniform(0.8, 2.0, count)
    exposures = tuple(
        Exposure(float(s), float(e), float(1 + g), float(n))
        for s, e, g, n in zip(shutters, stops, curve, grains, strict=True)
    )
    start_ns = START_NS + _HOUR_NS
    return Run(world, camera, count, seed, QUERY_HZ, start_ns, walk, exposures, with_depth=False, with_person=True)
