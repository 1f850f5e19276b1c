"""The original code's stored cases as our own values: loss maps, camera and poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.nre import LossMaps

COARSE = ["coarse_n200_s16_o30", "coarse_n200_s16_o30_dist", "coarse_n60_s8_rep40"]
FINE = "fine16_fixed_n200_o30"
CELLS = CellGrid(stride=1, offset_px=0)
"""Their intrinsics are given in cells."""


def load_golden(shared_data: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared_data / "golden" / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


def maps_of(golden: dict[str, np.ndarray]) -> LossMaps:
    """Dense gains from the sparse list; truncated cells are absent there and zero here."""
    height, width = golden["nre_maps"].shape[1:] if "nre_maps" in golden else _size(golden)
    ceiling = float(np.log(float(golden["card"])))
    gain = torch.zeros((len(golden["p3D"]), height, width))
    n, y, x = (torch.from_numpy(golden["sparse_nyx"][:, i].astype(np.int64)) for i in range(3))
    gain[n, y, x] = ceiling - torch.from_numpy(golden["sparse_val"])
    return LossMaps(gain, torch.zeros((len(gain), 2), dtype=torch.long), (width, height), CELLS, ceiling)


def _size(golden: dict[str, np.ndarray]) -> tuple[int, int]:
    if "H" in golden:
        return int(golden["H"]), int(golden["W"])
    cells = int(golden["card"]) - 1  # 4:3 maps
    width = round((cells * 4 / 3) ** 0.5)
    return cells // width, width


def camera_of(golden: dict[str, np.ndarray]) -> Camera:
    k, (width, height) = golden["K"], maps_of(golden).image_cells
    distortion = tuple(float(v) for v in golden["dist"])
    return Camera(width, height, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), distortion=distortion)


def poses_of(golden: dict[str, np.ndarray], name: str) -> Pose:
    rotation, translation = golden[f"{name}_R"], golden[f"{name}_t"]
    return Pose(torch.from_numpy(rotation).double(), torch.from_numpy(translation).double())
