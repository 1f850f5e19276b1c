"""Frames written as other software leaves them: COLMAP, 7-Scenes, nerfstudio."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nre_ros.geometry import DistortionModel, Pose
from nre_ros.recordings import Frame
from nre_ros.recordings.camera_info import camera_to_yaml
from nre_ros.recordings.compressed import encode_png

HALF = 0.5
"""COLMAP and nerfstudio put the centre of the top-left pixel at (0.5, 0.5)."""


def image_name(index: int) -> str:
    return f"left/{index:04d}.png"


def write_images(folder: Path, frames: Sequence[Frame]) -> None:
    (folder / "images/left").mkdir(parents=True)
    for i, frame in enumerate(frames):
        (folder / "images" / image_name(i)).write_bytes(encode_png(frame.image_rgb))


def write_colmap(folder: Path, frames: Sequence[Frame], *, text: bool = False, place: str = "sparse/0") -> Path:
    """OPENCV cameras, one an image, in falling order of the names; rigs and frames files stand by as in COLMAP 4."""
    write_images(folder, frames)
    model = folder / place
    model.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, frame in reversed(list(enumerate(frames))):
        assert frame.map_from_cam is not None and frame.camera.model is DistortionModel.PLUMB_BOB
        cam_from_map = frame.map_from_cam.inverse()
        x, y, z, w = cam_from_map.quat_xyzw().tolist()
        c = frame.camera
        values = (c.fx, c.fy, c.cx + HALF, c.cy + HALF, *c.coefficients()[:4].tolist())
        rows.append((i + 1, (w, x, y, z, *cam_from_map.translation.tolist()), image_name(i), c, values))
    if text:
        cameras = [f"{n} OPENCV {c.width} {c.height} {' '.join(map(repr, v))}" for n, _, _, c, v in rows]
        images = []
        for n, pose, name, _, _ in rows:
            images += [f"{n} {' '.join(map(repr, pose))} {n} {name}", "" if n == 1 else "10.5 20.5 -1 11.5 21.5 7"]
        files = {"cameras": cameras, "images": images, "points3D": ["7 1.0 2.0 3.0 0 0 0 0.5 2 0"]}
        for name, lines in files.items():
            what, count = name.replace("3D", ""), len(rows) if name != "points3D" else 1
            (model / f"{name}.txt").write_text(
                "\n".join(["# List", f"# Number of {what}: {count}, mean: 1", *lines, ""])
            )
        return folder
    head = struct.pack("<Q", len(rows))
    packed = [struct.pack("<IiQQ8d", n, 4, c.width, c.height, *v) for n, _, _, c, v in rows]
    (model / "cameras.bin").write_bytes(head + b"".join(packed))
    packed = [
        struct.pack("<I7dI", n, *p, n) + name.encode() + b"\0" + struct.pack("<Q", 0) for n, p, name, _, _ in rows
    ]
    (model / "images.bin").write_bytes(head + b"".join(packed))
    (model / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    (model / "rigs.bin").write_bytes(struct.pack("<QIIiI", 1, 1, 1, 0, 1))
    (model / "frames.bin").write_bytes(struct.pack("<Q", 0))
    return folder


def write_seven_scenes(folder: Path, frames: Sequence[Frame], queries: int, *, registered: bool = True) -> Path:
    """Map frames in seq-01, the last ``queries`` in seq-02; depth in millimetres with holes as 65535."""
    first = len(frames) - queries
    for i, frame in enumerate(frames):
        place = folder / ("seq-01" if i < first else "seq-02")
        place.mkdir(parents=True, exist_ok=True)
        name = f"frame-{i if i < first else i - first:06d}"
        (place / f"{name}.color.png").write_bytes(encode_png(frame.image_rgb))
        assert frame.map_from_cam is not None
        rows = frame.map_from_cam.matrix().tolist()
        (place / f"{name}.pose.txt").write_text("\n".join("\t ".join(f"{v: .15e}" for v in row) for row in rows) + "\n")
        if frame.depth_m is not None:
            known = np.isfinite(frame.depth_m) & (frame.depth_m > 0) & (frame.depth_m < 60)
            counts = np.where(known, np.rint(np.nan_to_num(frame.depth_m) * 1000), 65535).astype(np.uint16)
            (place / f"{name}.depth.png").write_bytes(cv2.imencode(".png", counts)[1].tobytes())
    (folder / "TrainSplit.txt").write_text("sequence1\n")
    (folder / "TestSplit.txt").write_text("sequence2\n")
    camera_to_yaml(frames[0].camera, folder / "camera.yaml")
    if registered:
        with (folder / "camera.yaml").open("a") as file:
            file.write("depth_registered: true\n")
    return folder


def write_transforms(folder: Path, frames: Sequence[Frame], queries: int, **keys: Any) -> Path:
    """nerfstudio's transforms.json: intrinsics at the top, OpenGL's axes, the last ``queries`` as test images."""
    write_images(folder, frames)
    names = [f"images/{image_name(i)}" for i in range(len(frames))]
    content = intrinsics(frames[0]) | {"camera_model": "OPENCV"}
    content["frames"] = [
        {"file_path": name, "transform_matrix": opengl_rows(frame.map_from_cam)}
        for name, frame in reversed(list(zip(names, frames, strict=True)))
    ]
    content["train_filenames"], content["test_filenames"] = names[: len(names) - queries], names[len(names) - queries :]
    content["applied_transform"] = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    (folder / "transforms.json").write_text(json.dumps(content | keys))
    return folder


def intrinsics(frame: Frame) -> dict[str, Any]:
    c = frame.camera
    k1, k2, p1, p2, k3 = c.coefficients().tolist()
    sizes = {"w": c.width, "h": c.height, "fl_x": c.fx, "fl_y": c.fy, "cx": c.cx + HALF, "cy": c.cy + HALF}
    return sizes | {"k1": k1, "k2": k2, "k3": k3, "p1": p1, "p2": p2}


def opengl_rows(map_from_cam: Pose | None) -> list[list[float]]:
    assert map_from_cam is not None
    return (map_from_cam.matrix().numpy() @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()
