"""Loss maps of single points of one image over another, with the best place and the true one marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nre_ros.evaluation.sheets import Tile, cells_as_pixels, sheet
from nre_ros.features import DenseFeatures
from nre_ros.features.maps import FeatureMap
from nre_ros.nre import coarse_loss_maps

ASKED, TRUE, BEST = (255, 255, 255), (40, 230, 60), (255, 60, 60)
"""Colours of the marks."""
_RADIUS_PX = 7


@dataclass(frozen=True)
class AskedPoint:
    """``uv_px`` (2,) in the first image, and where it is in the second one, if that is known."""

    uv_px: np.ndarray
    true_uv_px: np.ndarray | None = None


@dataclass(frozen=True)
class PointLoss:
    """One point's ``loss`` (h, w), as a share of ln|Omega|, 1 where it is truncated; ``best_uv_px`` its least cell.

    ``true_loss`` is what the cell of the true place says, None where that is unknown.
    """

    loss: np.ndarray
    best_uv_px: np.ndarray
    true_loss: float | None


@dataclass(frozen=True)
class Sheet:
    """The picture, uint8 RGB, and a line for each loss map."""

    picture: np.ndarray
    lines: list[str]


def point_losses(first: FeatureMap, second: FeatureMap, points: Sequence[AskedPoint]) -> list[PointLoss]:
    """Eq. 5 over the whole second image, at the maps' stride."""
    uv_px = torch.from_numpy(np.stack([point.uv_px for point in points]))
    asked = first.sample(uv_px.to(first.values.device))
    maps = coarse_loss_maps(asked, second.values, second.inverse_temperature, second.grid)
    losses = (1 - maps.gain / maps.ceiling).cpu().numpy()
    return [_point_loss(loss, second, point) for loss, point in zip(losses, points, strict=True)]


def loss_sheet(images: Sequence[np.ndarray], features: Sequence[DenseFeatures], points: Sequence[AskedPoint]) -> Sheet:
    """A row for each point: where it is in both images, its coarse and its fine loss over the second one.

    The brighter, the lower the loss. ``images`` are two, uint8 (H, W, 3), with their ``features``.
    """
    levels = {"coarse": (features[0].coarse, features[1].coarse), "fine": (features[0].fine, features[1].fine)}
    losses = {name: point_losses(*maps, points) for name, maps in levels.items()}
    height, width = images[1].shape[:2]
    rows: list[list[Tile]] = []
    lines = []
    for i, point in enumerate(points):
        true = [] if point.true_uv_px is None else [(point.true_uv_px, TRUE)]
        row = [(f"point {i + 1} in image 1", _marked(images[0], [(point.uv_px, ASKED)]))]
        row.append(("image 2", _marked(images[1], true)))
        for name, found in losses.items():
            picture = cells_as_pixels(_glow(found[i].loss), levels[name][1].grid.stride, height, width)
            row.append((f"{name} loss over image 2", _marked(picture, [(found[i].best_uv_px, BEST), *true])))
            lines.append(f"point {i + 1}, {name}: {_told(found[i], point)}")
        rows.append(row)
    return Sheet(sheet(rows), lines)


def spread_corners(image_rgb: np.ndarray, count: int = 5) -> list[AskedPoint]:
    """The strongest corners of an image that lie well apart; fewer where there are not so many."""
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, count, 0.01, min(image_rgb.shape[:2]) / 4)
    return [] if found is None else [AskedPoint(uv.astype(np.float64)) for uv in found.reshape(-1, 2)]


def _point_loss(loss: np.ndarray, map_: FeatureMap, point: AskedPoint) -> PointLoss:
    row, column = np.unravel_index(int(loss.argmin()), loss.shape)
    best = map_.grid.pixel_from_cell(torch.tensor([float(column), float(row)])).numpy()
    if point.true_uv_px is None:
        return PointLoss(loss, best, None)
    cell = map_.grid.cell_from_pixel(torch.from_numpy(point.true_uv_px)).round().long()
    x, y = (int(v.clamp(0, size - 1)) for v, size in zip(cell, loss.shape[::-1], strict=True))
    return PointLoss(loss, best, float(loss[y, x]))


def _told(found: PointLoss, point: AskedPoint) -> str:
    best = f"least loss {found.loss.min():.2f} of ln|Omega| at {found.best_uv_px[0]:.0f},{found.best_uv_px[1]:.0f}"
    if point.true_uv_px is None:
        return best
    off = float(np.linalg.norm(found.best_uv_px - point.true_uv_px))
    return f"{best}, {off:.0f} px from the true place, where it is {found.true_loss:.2f}"


def _glow(loss: np.ndarray) -> np.ndarray:
    """uint8 RGB (h, w, 3): black where the loss is truncated, bright where it is least."""
    gain = np.clip(255 * (1 - loss), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(gain, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB))


def _marked(picture: np.ndarray, marks: Sequence[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    canvas = np.ascontiguousarray(picture.copy())
    for uv_px, colour in marks:
        centre = round(float(uv_px[0])), round(float(uv_px[1]))
        cv2.circle(canvas, centre, _RADIUS_PX + 1, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.circle(canvas, centre, _RADIUS_PX, colour, 1, cv2.LINE_AA)
    return canvas
