"""The rendered world: exact depth and poses, no aliasing, honest blur and exposure, one world for one seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nre_ros.cli.main import main
from nre_ros.geometry import Camera, Pose, pose_error
from nre_ros.recordings import open_recording
from nre_ros.recordings.tables import read_stamped_rows
from nre_ros.simulation import Run, World, build_world, default_camera, mapping_run, query_run, render
from nre_ros.simulation.casting import rays
from nre_ros.simulation.lighting import Lamp
from nre_ros.simulation.materials import Material
from nre_ros.simulation.noise import fractal
from nre_ros.simulation.sensor import Exposure, develop
from nre_ros.simulation.surfaces import Surface, box, panel
from nre_ros.simulation.trajectory import mapping_walk
from nre_ros.simulation.world import pack_world

CAMERA = Camera(160, 120, 130.0, 131.0, 78.0, 61.0, distortion=(-0.2, 0.05, 0.001, -0.002))
SIZE_M = 4.0


def looking(x: float, y: float, z: float, yaw_deg: float, pitch_deg: float = 0.0) -> Pose:
    """map_from_cam of a camera that looks along a compass direction, tilted down by a pitch."""
    yaw, pitch = np.deg2rad(yaw_deg), np.deg2rad(pitch_deg)
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    columns = np.stack([right, np.cross(forward, right), forward], 1)
    return Pose(torch.tensor(columns), torch.tensor([x, y, z], dtype=torch.float64))


def soft(rng: np.random.Generator, cell_px: float) -> Material:
    """Texture at the scale of pixels, so that it neither aliases nor blurs."""
    field = [fractal(rng, 400, 400, cell_px, 2) for _ in range(3)]
    return Material(np.clip(128 + 40 * np.stack(field, -1), 0, 255).astype(np.uint8), 0.01)


def small_world(seed: int = 0) -> World:
    """A cube of a room with a box in it, lit by one lamp."""
    rng = np.random.default_rng(seed)
    skin, s = soft(rng, 40), SIZE_M
    walls = [
        panel(rng, skin, (0, s, s), (s, 0, 0), (0, 0, -s)),
        panel(rng, skin, (s, 0, s), (-s, 0, 0), (0, 0, -s)),
        panel(rng, skin, (s, s, s), (0, -s, 0), (0, 0, -s)),
        panel(rng, skin, (0, 0, s), (0, s, 0), (0, 0, -s)),
        panel(rng, skin, (0, s, 0), (s, 0, 0), (0, -s, 0)),
        panel(rng, skin, (0, 0, s), (s, 0, 0), (0, s, 0)),
    ]
    corner, across = np.array([1.8, 1.8, 3.8]), np.array([0.4, 0, 0])
    lamp = Lamp(corner, across, np.array([0, 0.4, 0]), (6.0, 6.0, 6.0), None)
    furniture = box(rng, skin, (2.4, 2.2, 0), (3.0, 3.0, 1.0))
    return pack_world([*walls, *furniture], [lamp], box(rng, skin, (-0.2, -0.2, 0), (0.2, 0.2, 1.7)))


@pytest.fixture(scope="module")
def room() -> World:
    return small_world()


@pytest.fixture(scope="module")
def house() -> World:
    return build_world(0)


def points_of(view_depth_m: np.ndarray, map_from_cam: Pose) -> torch.Tensor:
    """Every pixel's point in the map, (H*W, 3), by the camera's own unprojection."""
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width].astype(np.float64)
    bearing = CAMERA.unproject(torch.tensor(np.stack([u, v], -1).reshape(-1, 2)))
    depth = torch.tensor(view_depth_m.astype(np.float64)).reshape(-1, 1)
    return map_from_cam.transform(bearing / bearing[:, 2:] * depth)


def test_depth_lies_on_the_surfaces(room: World) -> None:
    """Of a slanted view, where half a pixel's shift of the rays would move the points by centimetres."""
    pose = looking(1.0, 0.7, 1.6, 50, 20)
    view = render(room, CAMERA, pose)
    points = points_of(view.depth_m, pose).numpy()
    quads = room.house[view.quad.ravel()]
    normal = np.cross(quads.edge_u, quads.edge_v)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    assert np.abs(((points - quads.origin) * normal).sum(1)).max() < 1e-5
    for edge in (quads.edge_u, quads.edge_v):
        share = ((points - quads.origin) * edge).sum(1) / (edge**2).sum(1)
        assert share.min() > -1e-4 and share.max() < 1 + 1e-4
    assert len(np.unique(view.quad)) >= 5, "the view is to hold walls, floor and box"


def test_views_agree_where_they_see_the_same(room: World) -> None:
    first, second = looking(1.0, 1.0, 1.5, 45, 12), looking(1.5, 0.7, 1.3, 60, 10)
    a, b = render(room, CAMERA, first), render(room, CAMERA, second)
    in_second = second.inverse().transform(points_of(a.depth_m, first))
    uv, valid = CAMERA.project(in_second)
    inside = (valid & CAMERA.contains(uv, 2)).numpy()
    uv_px, z = uv.numpy()[inside], in_second[:, 2].numpy()[inside]
    cols, rows = np.round(uv_px).astype(int).T
    around = np.ones((3, 3), np.uint8)  # the point lies between pixels
    behind = z > cv2.dilate(b.depth_m, around)[rows, cols] + 1e-4
    before = z < cv2.erode(b.depth_m, around)[rows, cols] - 1e-4
    assert inside.mean() > 0.4 and 0 < behind.mean() < 0.3
    assert not before.any(), "nothing seen from one place may lie before what is seen from another"
    same = ~behind & ~before
    brightness = [np.sqrt(v.radiance.mean(-1)) for v in (a, b)]
    difference = brightness[0].ravel()[inside][same] - brightness[1][rows, cols][same]
    unrelated = brightness[0].ravel()[inside][same] - np.roll(brightness[1][rows, cols][same], 500)
    assert np.median(np.abs(difference)) < 0.15 * np.median(np.abs(unrelated))


def test_top_left_pixel_is_centred_on_zero(room: World) -> None:
    x, y = rays(replace(CAMERA, distortion=()))
    assert x[0, 0] == pytest.approx(-78.0 / 130.0)
    assert y[0, 0] == pytest.approx(-61.0 / 131.0)


def test_fine_texture_does_not_alias() -> None:
    """Stripes far finer than pixels look grey, and stay so when the camera moves by parts of a pixel."""
    rng = np.random.default_rng(0)
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    wall = Surface(np.array([-4.0, 4, 6]), np.array([8.0, 0, 0]), np.array([0, 0, -8.0]), stripes, glow=(1, 1, 1))
    world = pack_world([wall, *box(rng, soft(rng, 9), (0, 0, -9), (1, 1, -8))], [], [])
    middle = (slice(40, 80), slice(60, 100))
    views = [render(world, CAMERA, looking(dx, 0, 2, 90)).radiance[middle] for dx in (0.0, 0.011, 0.023)]
    assert max(v.std() for v in views) < 0.02
    assert np.mean(views[0]) == pytest.approx(0.25, abs=0.03)


def test_textures_keep_their_sharpness_up_close(room: World) -> None:
    """Antialiasing must not blur what a pixel resolves: an edge is as steep as one pixel allows."""
    edge = np.zeros((200, 200, 3), np.uint8)
    edge[:, 100:] = 255
    wall = Surface(np.array([-1.0, 1, 3]), np.array([2.0, 0, 0]), np.array([0, 0, -2.0]), edge, glow=(1, 1, 1))
    rng = np.random.default_rng(0)
    world = pack_world([wall, *box(rng, soft(rng, 9), (0, 0, -9), (1, 1, -8))], [], [])
    row = np.sqrt(render(world, CAMERA, looking(0, 0, 2, 90)).radiance[60, :, 0])
    assert np.abs(np.diff(row)).max() > 0.4


def test_same_seed_same_world_and_frames(room: World) -> None:
    pose = looking(1.0, 1.0, 1.5, 45)
    first, again, other = (render(small_world(seed), CAMERA, pose).radiance for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    images = [develop(first, Exposure(), np.random.default_rng(n)) for n in (3, 3, 4)]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])


def test_corners_are_darker_than_open_floor_and_shadows_fall(room: World) -> None:
    """The lamp hangs over the middle; behind the box, in the corner, there is less light."""
    pose = looking(2.0, 2.0, 3.5, 0, 89.9)
    light = render(room, CAMERA, pose)
    floor = light.quad == 4
    assert floor.any()
    x0, y0, steps_u, steps_v = room.house.light_rect[4].astype(int)
    baked = room.light[y0 : y0 + steps_v + 1, x0 : x0 + steps_u + 1].mean(-1)
    middle, shaded = baked[steps_v // 2, steps_u // 3], baked[round(steps_v * 0.2), round(steps_u * 0.8)]
    assert shaded < 0.6 * middle


def sharpness(image: np.ndarray) -> tuple[float, float]:
    """Mean gradient along the rows and along the columns."""
    grey = image.astype(np.float64).mean(-1)
    return float(np.abs(np.diff(grey, axis=1)).mean()), float(np.abs(np.diff(grey, axis=0)).mean())


def test_blur_is_the_motion_during_the_exposure(room: World) -> None:
    """A turning camera smears along the rows and leaves the columns; a closed shutter smears nothing."""

    class Turning:
        duration_s = 10.0

        def map_from_base(self, time_s: float) -> Pose:
            turn = Pose.exp(torch.tensor([0, 0, np.deg2rad(45 + 30 * time_s), 0, 0, 0], dtype=torch.float64))
            return Pose(turn.rotation, torch.tensor([1.2, 1.2, 0.3], dtype=torch.float64))

    def frame(shutter_s: float) -> np.ndarray:
        exposure = Exposure(shutter_s=shutter_s, grain=0.0)
        run = Run(room, CAMERA, 1, 0, 5.0, 0, Turning(), (exposure,), with_depth=True, with_person=False)  # type: ignore[arg-type]
        return run.frame(0).image_rgb

    still, short, moved = frame(0.0), frame(1e-4), frame(0.1)
    assert np.abs(still.astype(int) - short).max() <= 3
    rows, columns = (b / a for a, b in zip(sharpness(still), sharpness(moved), strict=True))
    assert rows < 0.85
    assert columns > 0.9


def test_exposure_does_what_it_says() -> None:
    rng = np.random.default_rng(0)
    radiance = np.repeat(rng.uniform(0.05, 0.3, (60, 60, 1)), 3, 2).astype(np.float32)

    def developed(**settings: float) -> np.ndarray:
        return develop(radiance, Exposure(**settings), np.random.default_rng(0)).astype(np.float64) / 255

    plain = developed(grain=0.0)
    assert np.allclose(developed(grain=0.0, stops=-1.0), plain * 2**-0.5, atol=0.01), "the response curve is a root"
    assert np.allclose(developed(grain=0.0, gamma=1.3), plain**1.3, atol=0.01)
    noise = [np.std(developed(grain=g) - plain) for g in (1.0, 3.0)]
    assert noise[1] == pytest.approx(3 * noise[0], rel=0.15)


def test_query_run_is_near_the_mapping_run_but_another(house: World) -> None:
    camera = default_camera(64, 48)
    mapping, query = mapping_run(house, camera, 80, 0), query_run(house, camera, 40, 0)
    mapped = [mapping._map_from_cam(i / mapping.rate_hz) for i in range(mapping.count)]
    for i in range(query.count):
        asked = query._map_from_cam(i / query.rate_hz)
        errors = [tuple(float(e) for e in pose_error(asked, m)) for m in mapped]
        assert any(degrees < 30 and metres < 1.0 for degrees, metres in errors)
        assert min(metres for _, metres in errors) > 0.05


def test_walks_keep_clear_of_the_furniture(house: World) -> None:
    camera = default_camera(64, 48)
    for seed in range(2):
        for run in (mapping_run(house, camera, 80, seed), query_run(house, camera, 40, seed)):
            for time_s in np.linspace(0, run.walk.duration_s, 25):
                depth_m = render(house, camera, run._map_from_cam(float(time_s))).depth_m
                assert np.isfinite(depth_m).all()
                assert depth_m.min() > 0.25


def test_person_is_in_the_query_run_alone(house: World) -> None:
    camera = default_camera(64, 48)
    query = query_run(house, camera, 40, 0)
    assert not mapping_run(house, camera, 40, 0).with_person
    covered = []
    for i in range(query.count):
        time_s = i / query.rate_hz
        view = render(house, camera, query._map_from_cam(time_s), query._map_from_person(time_s))
        covered.append((view.quad >= len(house.house)).mean())
    assert 0.2 < np.mean(np.array(covered) > 0.01) < 0.9
    assert max(covered) < 0.5, "the house must stay visible"


def test_walk_is_smooth() -> None:
    walk = mapping_walk(16.0, 0)
    poses = [walk.map_from_base(float(t)) for t in np.arange(0, 16, 0.01)]
    steps = [pose_error(a, b) for a, b in pairwise(poses)]
    assert max(float(metres) for _, metres in steps) < 0.04
    assert max(float(degrees) for degrees, _ in steps) < 2.0


def test_simulate_writes_what_was_rendered(tmp_path: Path) -> None:
    folder = tmp_path / "sim"
    words = ["-o", str(folder), "--map-frames", "3", "--query-frames", "2", "--size", "96x64"]
    assert main(["simulate", *words]) == 0
    mapping = list(open_recording(folder / "mapping").frames())
    assert [f.camera for f in mapping] == [default_camera(96, 64)] * 3
    assert all(f.depth_m is not None and np.isfinite(f.depth_m).all() for f in mapping)
    camera, first = mapping[0].camera, mapping[0]
    assert first.map_from_cam is not None and first.depth_m is not None
    # the depth of the bag is that of its poses: the floor is where z is zero
    bearing = camera.unproject(torch.tensor([[48.0, 60.0]], dtype=torch.float64))
    point = first.map_from_cam.transform(bearing / bearing[:, 2:] * float(first.depth_m[60, 48]))[0]
    assert -0.01 < float(point[2]) < 2.7
    query = list(open_recording(folder / "query", pose_topic="/ground_truth/pose").frames())
    truth = [
        (stamp, [float(v) for v in rest.split()]) for _, stamp, rest in read_stamped_rows(folder / "query_truth.txt")
    ]
    assert [stamp for stamp, _ in truth] == [f.stamp_ns for f in query]
    for frame, (_, numbers) in zip(query, truth, strict=True):
        assert frame.depth_m is None and frame.map_from_cam is not None
        assert frame.map_from_cam.translation.tolist() == pytest.approx(numbers[:3], abs=1e-6)


def test_simulate_overwrites_nothing_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mapping").mkdir()
    assert main(["simulate", "-o", str(tmp_path)]) == 1
    assert "holds mapping already" in capsys.readouterr().err
    assert not (tmp_path / "query").exists()


@pytest.mark.parametrize("words", [["--size", "640"], ["--size", "8x8"], ["--map-frames", "1"]])
def test_simulate_tells_bad_arguments(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", "-o", str(tmp_path), *words])
    assert exit_.value.code == 2
