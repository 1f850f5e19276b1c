"""Synthetic loss maps: a camera, landmarks before it, and what a good but fallible network would say of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.nre import FineStage, LossMaps

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
BLOB_CELLS = 0.8
"""Width of the bump that a landmark makes in its map."""
CONFIDENCE = 9.0
"""Height of its logits over the rest of the map."""


@dataclass(frozen=True)
class Scene:
    xyz_map: Tensor
    cam_from_map: Pose
    coarse: LossMaps
    uv_px: Tensor
    """(N, 2) true projections."""
    right: Tensor
    """(N,) whether a point's map has its bump there."""

    @property
    def map_from_cam(self) -> Pose:
        return self.cam_from_map.inverse()


def bumps(xy_cells: Tensor, width: int, height: int, confidence: float = CONFIDENCE) -> Tensor:
    """Logits (N, height, width) with a Gaussian bump at each position (N, 2)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    squared = (x - xy_cells[:, 0, None, None]) ** 2 + (y - xy_cells[:, 1, None, None]) ** 2
    return (confidence * torch.exp(-squared / (2 * BLOB_CELLS**2))).float()


def loss_maps(logits: Tensor, grid: CellGrid) -> LossMaps:
    """The truncated -ln softmax of logits (N, h, w) over the whole image."""
    height, width = logits.shape[1:]
    ceiling = math.log(height * width + 1)
    gain = (torch.log_softmax(logits.flatten(1), 1) + ceiling).clamp_min(0).unflatten(1, (height, width))
    return LossMaps(gain, torch.zeros((len(logits), 2), dtype=torch.long), (width, height), grid, ceiling)


def make_scene(
    seed: int,
    points: int,
    wrong: float,
    stride: int = 8,
    *,
    noise_cells: float = 0.3,
    uv_px: Tensor | None = None,
    camera: Camera = CAMERA,
) -> Scene:
    """``points`` landmarks 2 to 8 units before the camera, the share ``wrong`` with a bump at a random other place.

    Bumps err by a Gaussian of ``noise_cells`` from the true projections ``uv_px``, by default all over the image.
    """
    rng = torch.Generator().manual_seed(seed)
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    if uv_px is None:
        uv_px = torch.rand((points, 2), generator=rng, dtype=torch.float64) * size - 0.5
    bearing = camera.unproject(uv_px)
    depth = 2 + 6 * torch.rand((points, 1), generator=rng, dtype=torch.float64)
    twist = torch.randn(6, generator=rng, dtype=torch.float64)
    cam_from_map = Pose.exp(twist * torch.tensor([1.0, 1.0, 1.0, 4.0, 4.0, 4.0], dtype=torch.float64))
    xyz_map = cam_from_map.inverse().transform(bearing / bearing[:, 2:] * depth)

    grid = CellGrid(stride, (stride - 1) / 2)
    width, height = camera.width // stride, camera.height // stride
    right = torch.randperm(points, generator=rng) >= round(wrong * points)
    centre = grid.cell_from_pixel(uv_px) + noise_cells * torch.randn((points, 2), generator=rng, dtype=torch.float64)
    elsewhere = torch.rand((points, 2), generator=rng, dtype=torch.float64) * torch.tensor([width, height])
    logits = bumps(torch.where(right[:, None], centre, elsewhere), width, height)
    logits = logits + 0.5 * torch.randn(logits.shape, generator=rng)
    return Scene(xyz_map, cam_from_map, loss_maps(logits, grid), uv_px, right)


def scaled(scene: Scene, factor: float) -> Scene:
    """The same scene in another unit of length."""
    pose = Pose(scene.cam_from_map.rotation, scene.cam_from_map.translation * factor)
    return replace(scene, xyz_map=scene.xyz_map * factor, cam_from_map=pose)


def fine_stage(scene: Scene, seed: int, stride: int = 2, channels: int = 32, camera: Camera = CAMERA) -> FineStage:
    """Random smooth features at a small stride; right points have the descriptor of their true projection."""
    rng = torch.Generator().manual_seed(seed)
    grid = CellGrid(stride, (stride - 1) / 2)
    features = torch.randn((1, channels, camera.height // stride, camera.width // stride), generator=rng)
    features = torch.nn.functional.avg_pool2d(features, 3, 1, 1)
    features = torch.nn.functional.normalize(features, dim=1)[0]
    cells = grid.cell_from_pixel(scene.uv_px)
    span = torch.tensor([features.shape[2] - 1, features.shape[1] - 1])
    read = torch.nn.functional.grid_sample(
        features[None], (cells / span * 2 - 1)[None, None].float(), align_corners=True, padding_mode="border"
    )[0, :, 0].T
    random = torch.randn((len(cells), channels), generator=rng)
    descriptors = torch.nn.functional.normalize(torch.where(scene.right[:, None], read, random), dim=1)
    features = features.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as networks lay them out
    return FineStage(descriptors, features, 15.0, grid)
