"""Where a point of one view appears in another, by the network's descriptors along its epipolar line.

No detector has to find the point twice, so this reaches across wider baselines than matching keypoints does. As in
localization, the coarse maps are asked first and the fine ones in a window about the answer; unlike there, the pose is
known and the point's depth is all that is sought.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.features import DenseFeatures
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.fine_peaks import find_peaks, windows

WIDEST_PARALLAX_DEG = 60.0
"""Beyond this parallax a surface looks too different to be known again."""
STEP_CELLS = 0.75
"""Coarse cells between two places that are tried along the line."""
NEIGHBOURS = 2
"""Places to either side of the best whose probability counts as its own."""
WINDOW = 16
"""Side of the fine window, cells."""
BAND_PX = 2.5
"""Largest distance of the answer from the epipolar line: that of poses that are a little off."""
LEAST_COARSE = 0.3
"""Least probability of the answer among the places along the line."""
LEAST_GAIN = 0.45
"""Least NRE of the answer below its ceiling, as share of the ceiling: how clearly the point is in view at all."""
LEAST_FINE = 0.35
"""Least probability of the answer and its neighbours in the fine window."""
RETURN_PX = 3.0
"""An answer, looked for in the first view, must lead back this near to where it came from."""


@dataclass(frozen=True)
class Points:
    """Things to look for: unit ``bearings`` (N, 3) float64 in their view, ``coarse`` (N, Cc) and ``fine`` (N, Cf)."""

    bearings: Tensor
    coarse: Tensor
    fine: Tensor

    def __getitem__(self, index: Tensor) -> Points:
        return Points(self.bearings[index], self.coarse[index], self.fine[index])


@dataclass(frozen=True)
class Found:
    """``point`` (M,) int64 index of what was found, ``uv_px`` (M, 2) float64 where, ``doubt`` (M,) 0 to 1."""

    point: Tensor
    uv_px: Tensor
    doubt: Tensor


@dataclass(frozen=True)
class DenseView:
    """A posed image as the network sees it."""

    camera: Camera
    map_from_cam: Pose
    features: DenseFeatures

    @property
    def focal_px(self) -> float:
        return (self.camera.fx + self.camera.fy) / 2

    def points_at(self, uv_px: Tensor) -> Points:
        """What is seen at pixels (N, 2)."""
        bearings = F.normalize(self.camera.unproject(uv_px), dim=-1)
        return Points(bearings, self.features.coarse.sample(uv_px), self.features.fine.sample(uv_px))

    @functools.cached_property
    def fine_bearings(self) -> Tensor:
        """Unit bearings (h * w, 3) float32 of the fine cells."""
        grid, (height, width) = self.features.fine.grid, self.features.fine.values.shape[1:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([columns, rows], -1).reshape(-1, 2).double()
        return F.normalize(self.camera.unproject(grid.pixel_from_cell(cells)), dim=-1).float()


def find_points(points: Points, seen_from: DenseView, view: DenseView) -> Found:
    """Look in ``view`` for points of ``seen_from``; what is found leads back to where it came from."""
    there = _search(points, seen_from, view)
    back = _search(view.points_at(there.uv_px), view, seen_from, certain=False)
    came_from, visible = seen_from.camera.project(points.bearings[there.point[back.point]])
    same = visible & ((back.uv_px - came_from).norm(dim=-1) < RETURN_PX)
    kept = back.point[same]
    return Found(there.point[kept], there.uv_px[kept], there.doubt[kept])


def _search(points: Points, seen_from: DenseView, view: DenseView, certain: bool = True) -> Found:
    """One way only; ``certain`` asks for what sets a good answer apart from the best of bad ones."""
    view_from_points = view.map_from_cam.inverse() @ seen_from.map_from_cam
    coarse_px, normals, index, doubt = _coarse_answers(points, view_from_points, view, certain)
    return _fine_answers(points.fine[index], normals, coarse_px, view, index, doubt, certain)


def _coarse_answers(
    points: Points, view_from_points: Pose, view: DenseView, certain: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels (M, 2), normals (M, 3) float32 of the epipolar planes, which points, and doubts of the best places."""
    level = view.features.coarse
    height, width = level.values.shape[1:]
    places, normals = _places_along_lines(points.bearings, view_from_points, view)
    cell = level.grid.cell_from_pixel(places).round().nan_to_num(-1).long()
    inside = ((cell >= 0) & (cell < torch.tensor([width, height]))).all(-1)
    logits = level.inverse_temperature * points.coarse.float() @ level.values.flatten(1).float()
    flat = torch.where(inside, cell[..., 1] * width + cell[..., 0], 0)
    along = logits.gather(1, flat).masked_fill(~inside, -math.inf)
    best = along.argmax(1, keepdim=True)
    steps = torch.arange(along.shape[1])
    probability = along.softmax(1).nan_to_num(0)
    share = (probability * ((steps - best).abs() <= NEIGHBOURS)).sum(1)
    peak = along.gather(1, best)[:, 0]
    gain = 1 - (logits.logsumexp(1) - peak) / math.log(height * width)
    good = torch.isfinite(peak)
    if certain:
        good = good & (share > LEAST_COARSE) & (gain > LEAST_GAIN)
    index = torch.nonzero(good)[:, 0]
    return places[index, best[index, 0]], normals[index], index, 1 - share[index]


def _places_along_lines(bearings: Tensor, view_from_points: Pose, view: DenseView) -> tuple[Tensor, Tensor]:
    """Pixels (N, S, 2) in the view of points along each bearing, from infinity nearer, NaN where out of sight; and the
    normals (N, 3) float32 of the epipolar planes."""
    far = bearings @ view_from_points.rotation.T
    toward = F.normalize(view_from_points.translation, dim=-1).expand_as(far)
    across = F.normalize(toward - (toward * far).sum(-1, keepdim=True) * far, dim=-1)
    step = STEP_CELLS * view.features.coarse.grid.stride / view.focal_px
    full = torch.arccos((far * toward).sum(-1).clamp(-1, 1))
    angle = torch.arange(int(math.radians(WIDEST_PARALLAX_DEG) / step) + 1, dtype=far.dtype) * step
    directions = angle.cos()[:, None] * far[:, None] + angle.sin()[:, None] * across[:, None]
    uv_px, visible = view.camera.project(directions)
    reached = visible & (angle < full[:, None])
    normals = F.normalize(torch.linalg.cross(far, across), dim=-1)
    return torch.where(reached[..., None], uv_px, torch.nan), normals.float()


def _fine_answers(
    descriptors: Tensor, normals: Tensor, near_px: Tensor, view: DenseView, index: Tensor, doubt: Tensor, certain: bool
) -> Found:
    """The best fine cell of each near its pixel and its epipolar line, between cells where the peak says so."""
    level = view.features.fine
    cells, inside = windows(level, near_px, WINDOW)
    flat = torch.where(inside, cells[..., 1] * level.values.shape[2] + cells[..., 0], 0)
    seen = level.values.flatten(1).T[flat].float()
    logits = level.inverse_temperature * (seen @ descriptors.float()[:, :, None])[..., 0]
    logits = logits.masked_fill(~inside, -math.inf)
    off_px = (view.fine_bearings[flat] @ normals[:, :, None])[..., 0].abs() * view.focal_px
    best = logits.masked_fill(off_px > BAND_PX, -math.inf).argmax(1)
    square = logits.reshape(-1, WINDOW, WINDOW)
    offset, share = find_peaks(square, best)
    good = torch.isfinite(logits.gather(1, best[:, None])[:, 0])
    good = good & (off_px.gather(1, best[:, None])[:, 0] <= BAND_PX)
    if certain:
        good = good & (share > LEAST_FINE)
    cell = cells[torch.arange(len(best)), best].double() + offset
    uv_px = level.grid.pixel_from_cell(cell)
    return Found(index[good], uv_px[good], (1 - (1 - doubt) * share)[good])
