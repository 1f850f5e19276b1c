"""Pictures whose colours tell where one looks, and a COLMAP model of the textured corner."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import ros_world
import torch

from nre_ros.geometry import Camera
from nre_ros.recordings.compressed import encode_png
from nre_ros.training.config import TrainingConfig
from nre_ros.training.pairs import Pair

SHIFT = 0.5
"""COLMAP's pixels less ours."""


def coordinate_photo(width: int = 256, height: int = 200) -> np.ndarray:
    """Red is the column, green the row."""
    v, u = np.mgrid[:height, :width]
    return np.stack([u, v, np.full_like(u, 128)], -1).astype(np.uint8)


def texture(seed: int, width: int = 256, height: int = 200) -> np.ndarray:
    """A picture that no two places of look alike."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((n, n, 3)), (width, height), interpolation=cv2.INTER_CUBIC) for n in (6, 20, 60)]
    return np.clip(255 * np.mean(layers, axis=0), 0, 255).astype(np.uint8)


def write_photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for seed in range(count):
        (folder / f"{seed}.png").write_bytes(encode_png(texture(seed)))
    return folder


def colours(image: np.ndarray, uv_px: np.ndarray) -> np.ndarray:
    """Bilinear reading (N, 3) at pixels (N, 2)."""
    u, v = uv_px.astype(np.float32).T
    return cv2.remap(image.astype(np.float32), u[:, None], v[:, None], cv2.INTER_LINEAR)[:, 0]


def small_config(**values: object) -> TrainingConfig:
    from nre_ros.config import with_values

    small: dict[str, object] = {
        "pairs.width": 128,
        "pairs.height": 96,
        "pairs.points": 32,
        "pairs.min_points": 8,
        "batch": 2,
        "validation_pairs": 2,
        "validation_poses": 1,
        "log_steps": 1,
        "device": "cpu",
    }
    return with_values(TrainingConfig(), small | {name.replace("__", "."): value for name, value in values.items()})


def options(config: TrainingConfig) -> list[str]:
    """The --set arguments that make this configuration."""
    from nre_ros.training.config import as_values

    usual = as_values(TrainingConfig())
    changed = {name: value for name, value in as_values(config).items() if value != usual[name]}
    texts = {n: str(v).lower() if isinstance(v, bool) else str(v) for n, v in changed.items()}
    return [word for name, text in texts.items() for word in ("--set", f"{name}={text}")]


class OnePair:
    """Always the same pair."""

    def __init__(self, pair: Pair) -> None:
        self.corrupt: set[str] = set()
        self._pair = pair

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Pair | None:
        return self._pair


def write_colmap(folder: Path, views: int = 5, points: int = 400) -> Path:
    """images/ and sparse/ of the textured corner seen from ``views`` places; points on its two walls."""
    camera, rng = ros_world.CAMERA, np.random.default_rng(0)
    side, height = rng.uniform(0.05, 1.5, points), rng.uniform(-1, 1, points)
    on_first = rng.random(points) < 0.5
    xyz = np.stack([np.where(on_first, side, 0), np.where(on_first, 0, -side), height], -1)
    (folder / "images").mkdir(parents=True)
    (folder / "sparse").mkdir()
    images, tracks = [], np.zeros(points, int)
    for view in range(views):
        frame = ros_world.frame(float(view), view)
        (folder / "images" / f"{view}.png").write_bytes(encode_png(frame.image_rgb))
        cam_from_map = ros_world.pose(float(view)).inverse()
        uv, visible = camera.project(cam_from_map.transform(torch.from_numpy(xyz)))
        seen = np.flatnonzero((visible & camera.contains(uv, 1.0)).numpy())
        tracks[seen] += 1
        x, y, z, w = cam_from_map.quat_xyzw().tolist()
        head = struct.pack("<I7dI", view + 1, w, x, y, z, *cam_from_map.translation.tolist(), 1)
        body = b"".join(struct.pack("<2dQ", *(uv[i] + SHIFT).tolist(), i + 10) for i in seen)
        # a keypoint that no 3D point belongs to
        body += struct.pack("<2dQ", 1.0, 1.0, 2**64 - 1)
        images.append(head + f"{view}.png".encode() + b"\0" + struct.pack("<Q", len(seen) + 1) + body)
    (folder / "sparse/images.bin").write_bytes(struct.pack("<Q", views) + b"".join(images))
    write_cameras(folder / "sparse/cameras.bin", [(1, 1, camera, (camera.fx, camera.fy, camera.cx, camera.cy))])
    rows = [struct.pack("<Q3d3BdQ", i + 10, *xyz[i], 0, 0, 0, 0.1, 1) + struct.pack("<2I", 1, 0) for i in range(points)]
    (folder / "sparse/points3D.bin").write_bytes(struct.pack("<Q", points) + b"".join(rows[::-1]))
    return folder


def write_cameras(path: Path, cameras: Sequence[tuple[int, int, Camera, tuple[float, ...]]]) -> None:
    """Each camera's number, COLMAP model number, size from a Camera, and parameters with the centre in our pixels."""
    rows = []
    for number, model, camera, values in cameras:
        first = 1 if model in (0, 2, 3, 8, 9) else 2
        shifted = [v + SHIFT if i in (first, first + 1) else v for i, v in enumerate(values)]
        rows.append(struct.pack(f"<IiQQ{len(values)}d", number, model, camera.width, camera.height, *shifted))
    path.write_bytes(struct.pack("<Q", len(rows)) + b"".join(rows))
