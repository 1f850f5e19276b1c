"""Landmarks placed by what the network sees: observations move towards where the landmark's mean descriptor fits best.

A detector marks a point; where the network's features answer its descriptor most clearly is up to a pixel elsewhere,
and localization reads nothing but these answers. So the places are moved first (keypoint adjustment, as in Lindenberger
et al., Pixel-Perfect Structure-from-Motion, ICCV 2021), and the landmark is triangulated from them anew. They move half
of the way, for either place has its own noise: in sharp rendered images the detector's is the smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.config import BuilderConfig
from nre_ros.features import FeatureMap
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping.bundle import Observations
from nre_ros.mapping.descriptors import mean_of_each
from nre_ros.mapping.fine_peaks import find_peaks, windows
from nre_ros.mapping.spots import Describe
from nre_ros.mapping.triangulation import triangulate, widest_angle_deg

WINDOW = 9
"""Side of the window, cells, in which the best answer is sought."""
REACH_CELLS = 2
"""A best answer further than this from the middle is another thing, or no peak: the observation stays."""
KEPT_BYTES = 400 * 2**20
"""Feature maps kept between the two times that they are needed; further views are described anew."""
CHUNK = 256
"""Windows cut out at a time."""


@dataclass(frozen=True)
class Adjusted:
    """``seen``, the observations that remain, in their old order; ``xyz_map`` (L, 3) float64; ``fine`` (L, C) float32,
    the means of the descriptors where the landmarks appear."""

    seen: Observations
    xyz_map: Tensor
    fine: Tensor


def adjust_landmarks(
    seen: Observations,
    xyz_map: Tensor,
    fine: Tensor,
    movable: Tensor,
    map_from_cam: Pose,
    cameras: Sequence[Camera],
    describe: Describe,
    config: BuilderConfig,
    progress: Callable[[int, int], None],
) -> Adjusted:
    """Landmarks (L, 3), seen by posed views (K), where the network's fine features put them.

    ``fine`` (L, C) are the means of what the views hold at ``seen``; only ``movable`` landmarks (L,) are moved, not
    those of measured depth. One that would lose too many observations, or its parallax, stays as it was. Observations
    of views one after the other.
    """
    views, fine_maps = len(cameras), _FineMaps(describe)
    moved = seen.uv_px.clone()
    for i, mine in _by_view(seen):
        progress(i, 2 * views)
        mine = mine[movable[seen.point[mine]]]
        moved[mine] = _best_near(fine_maps(i), fine[seen.point[mine]], seen.uv_px[mine])
    moved = (moved + seen.uv_px) / 2
    half_way = Observations(seen.view, seen.point, moved)
    xyz, kept, better = _triangulated(half_way, xyz_map, movable, map_from_cam, cameras, config)
    uv_px = torch.where(better[seen.point][:, None], moved, seen.uv_px)
    remaining = Observations(seen.view, seen.point, uv_px)[kept]
    projected = _project(remaining, xyz, map_from_cam, cameras)

    def described() -> Iterator[tuple[Tensor, Tensor]]:
        for i, mine in _by_view(remaining):
            progress(views + i, 2 * views)
            yield fine_maps(i).sample(projected[mine].float()), remaining.point[mine]

    return Adjusted(remaining, xyz, mean_of_each(described(), len(xyz)))


class _FineMaps:
    """The fine maps of views, kept in half precision as far as :data:`KEPT_BYTES` reach."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._kept: dict[int, FeatureMap] = {}
        self._left = KEPT_BYTES

    def __call__(self, view: int) -> FeatureMap:
        if view not in self._kept:
            level = self._describe(view).features.fine
            level = replace(level, values=level.values.half())
            if level.values.nbytes > self._left:
                return replace(level, values=level.values.float())
            self._left -= level.values.nbytes
            self._kept[view] = level
        return replace(self._kept[view], values=self._kept[view].values.float())


def _by_view(seen: Observations) -> Iterator[tuple[int, Tensor]]:
    views, count = torch.unique_consecutive(seen.view, return_counts=True)
    yield from zip(views.tolist(), torch.arange(len(seen.view)).split(count.tolist()), strict=True)


def _best_near(level: FeatureMap, descriptors: Tensor, near_px: Tensor) -> Tensor:
    """Pixels (N, 2) float64 where descriptors (N, C) fit best near ``near_px``, between cells; these where nothing fits
    there better than all around."""
    cells, inside = windows(level, near_px, WINDOW)
    flat = torch.where(inside, cells[..., 1] * level.values.shape[2] + cells[..., 0], 0)
    channels_last, wanted = level.values.flatten(1).T, level.mixed(descriptors)
    parts = [
        (channels_last[where].float() @ each[:, :, None])[..., 0]
        for where, each in zip(flat.split(CHUNK), wanted.split(CHUNK), strict=True)
    ]
    logits = level.inverse_temperature * torch.cat(parts) if parts else torch.zeros(flat.shape)
    logits = logits.masked_fill(~inside, -torch.inf)
    best = logits.argmax(1)
    offset, _ = find_peaks(logits.unflatten(1, (WINDOW, WINDOW)), best)
    row, column = best // WINDOW - WINDOW // 2, best % WINDOW - WINDOW // 2
    peak = row.abs().maximum(column.abs()) <= REACH_CELLS
    best_px = level.grid.pixel_from_cell(cells[torch.arange(len(best)), best].double() + offset)
    return torch.where((peak & torch.isfinite(best_px).all(1))[:, None], best_px, near_px)


def _triangulated(
    seen: Observations,
    xyz_map: Tensor,
    movable: Tensor,
    map_from_cam: Pose,
    cameras: Sequence[Camera],
    config: BuilderConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Points (L, 3) from the observations, those that stay as they were among them; a mask (O,) of the observations
    that agree, or whose landmark stays; a mask (L,) of the landmarks that moved."""
    count, origin = len(xyz_map), map_from_cam.translation[seen.view]
    bearing = torch.zeros((len(seen.view), 3), dtype=torch.float64)
    focal = torch.zeros(len(seen.view), dtype=torch.float64)
    for i, mine in _by_view(seen):
        bearing[mine] = F.normalize(cameras[i].unproject(seen.uv_px[mine]), dim=1)
        focal[mine] = (cameras[i].fx + cameras[i].fy) / 2
    ray = (map_from_cam.rotation[seen.view] @ bearing[..., None])[..., 0]
    xyz = triangulate(seen.point, origin, ray, count, focal, config.max_reprojection_px)
    error_px = (_project(seen, xyz, map_from_cam, cameras) - seen.uv_px).norm(dim=1)
    agrees = error_px.nan_to_num(torch.inf) < config.max_reprojection_px
    length = torch.bincount(seen.point[agrees], minlength=count)
    angle = widest_angle_deg(seen.point[agrees], origin[agrees], xyz)
    better = movable & (length >= config.min_track_length) & (angle > config.min_triangulation_deg)
    return torch.where(better[:, None], xyz, xyz_map), agrees | ~better[seen.point], better


def _project(seen: Observations, xyz_map: Tensor, map_from_cam: Pose, cameras: Sequence[Camera]) -> Tensor:
    """Pixels (O, 2) where the views have the landmarks that they see; NaN behind the camera."""
    cam_from_map = map_from_cam.inverse()
    uv_px = torch.zeros_like(seen.uv_px)
    for i, mine in _by_view(seen):
        there, visible = cameras[i].project(cam_from_map[i].transform(xyz_map[seen.point[mine]]))
        uv_px[mine] = torch.where(visible[:, None], there, torch.nan)
    return uv_px
