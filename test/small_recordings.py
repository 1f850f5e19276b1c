"""Small frames and recordings for tests: random images, a camera that moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from nre_ros.geometry import Camera, Pose
from nre_ros.recordings import Frame
from nre_ros.recordings.camera_info import camera_to_yaml
from nre_ros.recordings.compressed import encode_png

CAMERA = Camera(32, 24, 30.0, 31.0, 15.5, 11.25, distortion=(0.1, -0.05, 0.001, 0.002, 0.01))
START_NS = 1_305_031_102_175_304_123
STEP_NS = 100_000_000


def stamp_ns(index: int) -> int:
    return START_NS + index * STEP_NS


def stamp_text(stamp: int) -> str:
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"


def pose_at(stamp: int) -> Pose:
    """A steady turn and move: between any two stamps it is what linear interpolation and slerp give."""
    seconds = (stamp - START_NS) * 1e-9
    turn = Pose.exp(torch.tensor([0.1, 0.5, -0.2, 0, 0, 0], dtype=torch.float64) * seconds)
    return Pose(turn.rotation, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) * seconds)


def make_frames(count: int = 4, *, depth: bool = False) -> list[Frame]:
    rng = np.random.default_rng(3)
    frames = []
    for i in range(count):
        image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        depth_m = rng.integers(0, 50000, (24, 32)).astype(np.float32) / 5000 if depth else None
        if depth_m is not None:
            depth_m[depth_m == 0] = np.nan
        frames.append(Frame(stamp_ns(i), image, CAMERA, pose_at(stamp_ns(i)), depth_m))
    return frames


def pose_line(stamp: int, map_from_cam: Pose) -> str:
    numbers = [*map_from_cam.translation.tolist(), *map_from_cam.quat_xyzw().tolist()]
    return f"{stamp_text(stamp)} " + " ".join(repr(v) for v in numbers)


def write_tum(folder: Path, frames: Sequence[Frame], queries: int = 1) -> Path:
    """A TUM folder with PNG images, poses, depth where the frames have it, and roles map, map, ..., query."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    camera_to_yaml(frames[0].camera if frames else CAMERA, folder / "camera.yaml")
    rgb, depth, poses, roles = ["# timestamp filename"], [], ["# timestamp tx ty tz qx qy qz qw"], []
    for i, frame in enumerate(frames):
        text = stamp_text(frame.stamp_ns)
        (folder / f"rgb/{i}.png").write_bytes(encode_png(frame.image_rgb))
        rgb.append(f"{text} rgb/{i}.png")
        if frame.map_from_cam is not None:
            poses.append(pose_line(frame.stamp_ns, frame.map_from_cam))
        if frame.depth_m is not None:
            counts = np.rint(np.nan_to_num(frame.depth_m) * 5000).astype(np.uint16)
            (folder / f"depth/{i}.png").write_bytes(cv2.imencode(".png", counts)[1].tobytes())
            depth.append(f"{text} depth/{i}.png")
        roles.append(f"{text} {'query' if i >= len(frames) - queries else 'map'}")
    for name, lines in (("rgb.txt", rgb), ("groundtruth.txt", poses), ("split.txt", roles)):
        (folder / name).write_text("\n".join(lines) + "\n")
    if depth:
        (folder / "depth.txt").write_text("\n".join(depth) + "\n")
    return folder


def assert_same_frame(actual: Frame, expected: Frame, pose_tolerance: float = 1e-9) -> None:
    assert actual.stamp_ns == expected.stamp_ns
    assert actual.camera == expected.camera
    assert actual.image_rgb.dtype == np.uint8
    np.testing.assert_array_equal(actual.image_rgb, expected.image_rgb)
    assert (actual.map_from_cam is None) == (expected.map_from_cam is None)
    if actual.map_from_cam is not None and expected.map_from_cam is not None:
        assert_same_pose(actual.map_from_cam, expected.map_from_cam, pose_tolerance)
    assert (actual.depth_m is None) == (expected.depth_m is None)
    if actual.depth_m is not None and expected.depth_m is not None:
        np.testing.assert_array_equal(actual.depth_m, expected.depth_m)


def assert_same_pose(actual: Pose, expected: Pose, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual.matrix(), expected.matrix(), atol=tolerance, rtol=0)
