"""COLMAP, 7-Scenes and transforms.json: cameras as OpenCV has them, roles, depth, and damage told in a sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from recording_formats import HALF, image_name, opengl_rows, write_colmap, write_seven_scenes, write_transforms
from small_recordings import CAMERA, make_frames
from training_scenes import write_cameras

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, DistortionModel
from nre_ros.recordings import Frame, open_recording
from nre_ros.recordings.colmap_cameras import MODELS, camera_of
from nre_ros.recordings.seven_scenes import CAMERA as KINECT

NUMBERS = {model.name: number for number, model in MODELS.items()}
K1, K2, P1, P2 = 0.1, -0.05, 0.003, -0.002
COLMAP_CAMERAS = {
    "SIMPLE_PINHOLE": ((500, 320, 240), ()),
    "PINHOLE": ((500, 510, 320, 240), ()),
    "SIMPLE_RADIAL": ((500, 320, 240, K1), (K1, 0)),
    "RADIAL": ((500, 320, 240, K1, K2), (K1, K2)),
    "OPENCV": ((500, 510, 320, 240, K1, K2, P1, P2), (K1, K2, P1, P2)),
    "FULL_OPENCV": (
        (500, 510, 320, 240, K1, K2, P1, P2, 0.03, 0.04, -0.02, 0.01),
        (K1, K2, P1, P2, 0.03, 0.04, -0.02, 0.01),
    ),
    "OPENCV_FISHEYE": ((500, 510, 320, 240, K1, K2, P1, P2), (K1, K2, P1, P2)),
    "SIMPLE_RADIAL_FISHEYE": ((500, 320, 240, K1), (K1, 0, 0, 0)),
    "RADIAL_FISHEYE": ((500, 320, 240, K1, K2), (K1, K2, 0, 0)),
    "SIMPLE_FISHEYE": ((500, 320, 240), (0, 0, 0, 0)),
    "FISHEYE": ((500, 510, 320, 240), (0, 0, 0, 0)),
}
"""Name to COLMAP's parameters and OpenCV's distortion."""


@pytest.fixture
def frames() -> list[Frame]:
    """Without k3, which COLMAP's OPENCV model has not."""
    camera = dataclasses.replace(CAMERA, distortion=CAMERA.distortion[:4])
    return [dataclasses.replace(frame, camera=camera) for frame in make_frames(4, depth=True)]


def _opencv_pixels(xyz: np.ndarray, name: str, values: tuple[float, ...], distortion: tuple[float, ...]) -> np.ndarray:
    """COLMAP's pixels (N, 2) of camera-frame points (N, 3)."""
    focal_lengths = MODELS[NUMBERS[name]].focal_lengths
    fx, fy, (cx, cy) = values[0], values[focal_lengths - 1], values[focal_lengths : focal_lengths + 2]
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    zero = np.zeros(3)
    if name.endswith("FISHEYE"):
        return cv2.fisheye.projectPoints(xyz[None], zero, zero, k, np.array(distortion, float))[0][0]
    padded = np.array([*distortion, *[0.0] * (4 - len(distortion))])
    return cv2.projectPoints(xyz, zero, zero, k, padded)[0][:, 0]


@pytest.mark.parametrize("name", COLMAP_CAMERAS)
def test_colmap_cameras_project_as_opencv_does_and_back(name: str) -> None:
    values, distortion = COLMAP_CAMERAS[name]
    rng = np.random.default_rng(4)
    xyz = np.column_stack([rng.uniform(-0.55, 0.55, (200, 2)), np.ones(200)]) * rng.uniform(1, 5, (200, 1))
    camera = camera_of(NUMBERS[name], 640, 480, values)
    assert isinstance(camera, Camera)
    uv, valid = camera.project(torch.from_numpy(xyz))
    assert bool(valid.all())
    np.testing.assert_allclose(uv.numpy() + HALF, _opencv_pixels(xyz, name, values, distortion), atol=1e-9)
    bearings = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    np.testing.assert_allclose(camera.unproject(uv).numpy(), bearings, atol=1e-9)


@pytest.mark.parametrize("name", ["FOV", "THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "EUCM", "EQUIRECTANGULAR"])
def test_colmap_cameras_without_a_ros_name_are_refused_by_theirs(
    frames: list[Frame], tmp_path: Path, name: str
) -> None:
    folder = write_colmap(tmp_path / "colmap", frames)
    number = NUMBERS[name]
    other = (500.0,) * MODELS[number].parameters
    mine = frames[0].camera
    values = (mine.fx, mine.fy, mine.cx, mine.cy, *mine.distortion)
    cameras = [(1, 4, mine, values), (2, number, mine, other), (3, 4, mine, values), (4, number, mine, other)]
    write_cameras(folder / "sparse/0/cameras.bin", cameras)
    recording = open_recording(folder)
    assert [frame.name for frame in recording.frames()] == [image_name(0), image_name(2)]
    assert len(recording.problems) == 1 and f"2 images of {folder / 'sparse/0'} are left out" in recording.problems[0]
    assert f"camera model {name} is not read" in recording.problems[0]
    write_cameras(folder / "sparse/0/cameras.bin", [(n, number, mine, other) for n in range(1, 5)])
    with pytest.raises(RecordingError, match=f"{name} is not; known are SIMPLE_PINHOLE"):
        open_recording(folder)


def test_images_may_have_cameras_and_sizes_of_their_own(frames: list[Frame], tmp_path: Path) -> None:
    other = dataclasses.replace(frames[1].camera, width=20, height=16, fx=25.0)
    frames[1] = dataclasses.replace(frames[1], camera=other, image_rgb=frames[1].image_rgb[:16, :20])
    for text in (False, True):
        read = list(open_recording(write_colmap(tmp_path / str(text), frames, text=text)).frames())
        for actual, expected in zip(read, frames, strict=True):
            np.testing.assert_allclose(actual.camera.matrix(), expected.camera.matrix(), atol=1e-9)
            assert actual.camera.distortion == expected.camera.distortion
            assert actual.image_rgb.shape == expected.image_rgb.shape


def test_stamps_of_colmap_are_seconds_in_the_order_of_names(frames: list[Frame], tmp_path: Path) -> None:
    read = list(open_recording(write_colmap(tmp_path, frames)).frames())
    assert [(frame.name, frame.stamp_ns) for frame in read] == [(image_name(i), i * 10**9) for i in range(4)]


def test_one_of_several_models_can_be_named(frames: list[Frame], tmp_path: Path) -> None:
    write_colmap(tmp_path, frames)
    second = tmp_path / "sparse/1"
    shutil.copytree(tmp_path / "sparse/0", second)
    assert "beside it lie the models 1" in open_recording(tmp_path).remarks[0]  # type: ignore[attr-defined]
    named = list(open_recording(second).frames())
    np.testing.assert_array_equal(named[3].image_rgb, frames[3].image_rgb)


def test_missing_images_are_counted_and_the_rest_is_read(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_colmap(tmp_path, frames)
    (folder / "images" / image_name(1)).unlink()
    damaged = folder / "images" / image_name(2)
    damaged.write_bytes(damaged.read_bytes()[:100])
    recording = open_recording(folder)
    assert recording.count() == 3
    assert [frame.stamp_ns for frame in recording.frames()] == [0, 3 * 10**9]
    assert "1 of 4 images" in recording.problems[0] and image_name(1) in recording.problems[0]
    assert f"{damaged} is left out" in recording.problems[1]
    shutil.rmtree(folder / "images/left")
    with pytest.raises(RecordingError, match=r"4 of 4 images .* are missing"):
        open_recording(folder)
    (folder / "images").rmdir()
    with pytest.raises(RecordingError, match="comes without its images"):
        open_recording(folder)


@pytest.mark.parametrize("name", ["cameras", "images"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("text", [False, True])
def test_model_cut_off_is_told(frames: list[Frame], tmp_path: Path, name: str, share: float, text: bool) -> None:
    folder = write_colmap(tmp_path, frames, text=text)
    file = folder / f"sparse/0/{name}{'.txt' if text else '.bin'}"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(RecordingError, match=r"COLMAP model .*(is cut off or damaged|holds no image)") as error:
        open_recording(folder)
    assert "\n" not in str(error.value)


def test_roles_name_images(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_colmap(tmp_path, frames)
    (folder / "split.txt").write_text("0.000000000 map\n")
    with pytest.raises(RecordingError, match=r"split.txt line 1 is '0.000000000 map', expected 'image-name role'"):
        open_recording(folder)


def test_seven_scenes_without_a_calibration(tmp_path: Path) -> None:
    frame = dataclasses.replace(make_frames(1)[0], image_rgb=np.zeros((480, 640, 3), np.uint8), camera=KINECT)
    frame = dataclasses.replace(frame, depth_m=np.full((480, 640), 2.0, np.float32))
    folder = write_seven_scenes(tmp_path, [frame] * 3, 1)
    (folder / "camera.yaml").unlink()
    recording = open_recording(folder)
    read = list(recording.frames())
    assert [f.camera for f in read] == [KINECT] * 3 and [f.depth_m for f in read] == [None] * 3
    assert len(recording.problems) == 1 and "not registered" in recording.problems[0]
    assert recording.roles == {
        10**12: "map",
        10**12 + 33_333_333: "map",
        2 * 10**12: "query",
    }
    (folder / "camera.yaml").write_text("depth_registered: true\n")
    depth_m = next(open_recording(folder).frames()).depth_m
    assert depth_m is not None and bool((depth_m == 2).all())
    (folder / "camera.yaml").write_text("depth_registered: perhaps\n")
    with pytest.raises(CalibrationError, match="expected true or false"):
        open_recording(folder)


def test_seven_scenes_bad_poses_are_told_and_the_images_kept(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_seven_scenes(tmp_path, frames, 1)
    (folder / "seq-01/frame-000000.pose.txt").unlink()
    (folder / "seq-01/frame-000001.pose.txt").write_text("nan " * 16)
    (folder / "seq-01/frame-000002.pose.txt").write_text("1 0 0 0\n0 2 0 0\n0 0 1 0\n0 0 0 1\n")
    recording = open_recording(folder)
    assert [frame.map_from_cam is not None for frame in recording.frames()] == [False, False, False, True]
    text = "\n".join(recording.problems)
    assert "000000.pose.txt is missing" in text and "no rotation" in text and "3 of 4 images" in text
    sequence = open_recording(folder / "seq-02")
    assert sequence.count() == 1 and sequence.roles == {}


def test_transforms_with_intrinsics_of_each_frame_and_without_suffixes(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_transforms(tmp_path, frames, 1)
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
    content["frames"][0] |= {"fl_x": 44.0, "k1": 0.0, "k2": 0.0, "k3": 0.0, "p1": 0.0, "p2": 0.0}
    (folder / "transforms.json").write_text(json.dumps(content))
    cameras = [frame.camera for frame in open_recording(folder / "transforms.json").frames()]
    assert [camera.fx for camera in cameras] == [30.0, 30.0, 30.0, 44.0]
    assert cameras[3].distortion == () and cameras[0].distortion == pytest.approx((0.1, -0.05, 0.001, 0.002, 0.0))


def test_transforms_with_nothing_but_an_angle(frames: list[Frame], tmp_path: Path) -> None:
    """As the synthetic scenes of NeRF: the size comes from the image, the centre lies in its middle."""
    folder = write_transforms(tmp_path, frames, 1)
    rows = [{"file_path": f"images/{image_name(0)}", "transform_matrix": opengl_rows(frames[0].map_from_cam)}]
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": 2 * math.atan(16 / 40), "frames": rows}))
    camera = next(open_recording(folder).frames()).camera
    assert (camera.width, camera.height) == (32, 24)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((40, 40, 15.5, 11.5))


def test_transforms_of_a_fisheye(frames: list[Frame], tmp_path: Path) -> None:
    fisheye = {"k1": 0.01, "k2": 0.02, "k3": 0.03, "k4": 0.04, "p1": 0.0, "p2": 0.0}
    for i, kind in enumerate(({"camera_model": "OPENCV_FISHEYE"}, {"camera_model": None, "is_fisheye": True})):
        camera = next(open_recording(write_transforms(tmp_path / str(i), frames, 1, **fisheye, **kind)).frames()).camera
        assert camera.model is DistortionModel.EQUIDISTANT and camera.distortion == (0.01, 0.02, 0.03, 0.04)


@pytest.mark.parametrize(("keys", "metres"), [({}, 0.25), ({"integer_depth_scale": 0.01}, 2.5)])
def test_transforms_with_depth_of_a_smaller_size(
    frames: list[Frame], tmp_path: Path, keys: dict[str, float], metres: float
) -> None:
    folder = write_transforms(tmp_path, frames, 1, **keys)
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["depth_file_path"] = "depth.png"
    (folder / "transforms.json").write_text(json.dumps(content))
    counts: np.ndarray = np.full((12, 16), 250, np.uint16)
    counts[:, :8] = 0
    (folder / "depth.png").write_bytes(cv2.imencode(".png", counts)[1].tobytes())
    recording = open_recording(folder)
    depth_m = next(recording.frames()).depth_m
    assert recording.unit == "metre" and depth_m is not None and depth_m.shape == (24, 32)
    assert np.isnan(depth_m[:, :16]).all() and depth_m[:, 16:] == pytest.approx(metres)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"camera_model": "OMNI"}, "its camera model 'OMNI' is not read, expected PINHOLE"),
        ({"k4": 0.1}, "its k4 is 0.1, which the model OPENCV has not"),
        ({"fl_x": "wide"}, "its fl_x is 'wide', expected a number"),
        ({"transform_matrix": [[1, 2], [3, 4]]}, r"its pose is a matrix of shape \(2, 2\)"),
        ({"transform_matrix": [["a"] * 4] * 4}, "its pose is no matrix"),
        ({"file_path": "images/gone.png"}, "gone.png is missing"),
        ({"file_path": 7}, "it has no file_path"),
    ],
)
def test_bad_frame_of_transforms_is_left_out_and_told(
    frames: list[Frame], tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    folder = write_transforms(tmp_path, frames, 1)
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"][1] |= change
    (folder / "transforms.json").write_text(json.dumps(content))
    recording = open_recording(folder)
    assert len(list(recording.frames())) == 3
    assert len(recording.problems) == 1
    assert re.search(text, recording.problems[0])
    content["frames"] = [content["frames"][1]]
    (folder / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(RecordingError, match=text):
        open_recording(folder)


def test_frame_of_transforms_without_a_pose_is_kept(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_transforms(tmp_path, frames, 1)
    content = json.loads((folder / "transforms.json").read_text())
    del content["frames"][0]["transform_matrix"]
    (folder / "transforms.json").write_text(json.dumps(content))
    recording = open_recording(folder)
    assert [frame.map_from_cam is not None for frame in recording.frames()] == [True, True, True, False]
    assert recording.problems == [f"1 of 4 images of {folder} have no pose"]


def test_damaged_transforms_are_told(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_transforms(tmp_path, frames, 1)
    whole = (folder / "transforms.json").read_text()
    for text, told in ((whole[:200], "cut off or damaged"), ("[]", "no keys"), ('{"frames": []}', "lists no frames")):
        (folder / "transforms.json").write_text(text)
        with pytest.raises(RecordingError, match=told):
            open_recording(folder)


def test_folder_without_a_single_pose(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_seven_scenes(tmp_path, frames, 1)
    for file in folder.glob("*/*.pose.txt"):
        file.unlink()
    with pytest.raises(RecordingError, match=r"has no poses: none of its 4 images has one; .*pose.txt is missing"):
        open_recording(folder).require_poses()


def test_real_colmap_folder_is_read(shared_data: Path) -> None:
    recording = open_recording(shared_data / "data/train/multiview/frei")
    frame = next(recording.frames())
    assert recording.count() == 17 and frame.image_rgb.shape[:2] == (frame.camera.height, frame.camera.width)


def test_binary_model_with_rigs_is_read_as_without(frames: list[Frame], tmp_path: Path) -> None:
    folder = write_colmap(tmp_path, frames)
    new = [frame.map_from_cam for frame in open_recording(folder).frames()]
    for name in ("rigs.bin", "frames.bin"):
        (folder / "sparse/0" / name).unlink()
    old = [frame.map_from_cam for frame in open_recording(folder).frames()]
    for a, b in zip(new, old, strict=True):
        assert a is not None and b is not None and torch.equal(a.matrix(), b.matrix())
