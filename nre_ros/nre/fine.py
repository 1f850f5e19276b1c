"""The fine stage: loss maps at a small stride, in windows where the coarse maps leave the landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.nre.gnc import refine, sigma_levels, smoothed_total
from nre_ros.nre.loss_maps import LossMaps, fine_loss_maps, window_mass

MIN_POINTS = 4
MIN_WINDOW_MASS = 0.005
"""Landmarks that the coarse map gives less than this chance to be in their window take no part."""
BETWEEN_SIGMA = 1.0
"""Smoothing (cells) at which one round of windows hands over to the next."""


class FineMaps(Protocol):
    """Makes the fine loss maps of one query on demand; ``grid`` ties their cells to pixels."""

    @property
    def grid(self) -> CellGrid: ...

    def maps(self, index: Tensor, centre_px: Tensor, prior_mass: Tensor, window: int) -> LossMaps:
        """Loss maps of the points ``index`` (M,) in windows of ``window`` + 1 cells around ``centre_px`` (M, 2), whose
        probabilities sum to ``prior_mass`` (M,)."""
        ...


@dataclass(frozen=True)
class FineStage:
    """Fine maps of the landmarks' ``descriptors`` (N, C) and the image's ``features`` (C, h, w)."""

    descriptors: Tensor
    features: Tensor
    inverse_temperature: float
    grid: CellGrid

    def maps(self, index: Tensor, centre_px: Tensor, prior_mass: Tensor, window: int) -> LossMaps:
        """As :class:`FineMaps` says."""
        return fine_loss_maps(
            self.descriptors[index], self.features, self.inverse_temperature, self.grid, centre_px, prior_mass, window
        )


@dataclass(frozen=True)
class Windows:
    """Fine ``maps`` (Q, H, K) of the points ``index`` (Q, H, K), whose ``xyz_map`` is (Q, H, K, 3); windows without any
    gain fill up where a hypothesis has fewer than another."""

    maps: LossMaps
    index: Tensor
    xyz_map: Tensor

    def take(self, which: Tensor) -> Windows:
        """Those of the hypotheses ``which`` (Q, 1)."""
        row = torch.arange(len(which), device=which.device)[:, None]
        maps = replace(self.maps, gain=self.maps.gain[row, which], origin_cells=self.maps.origin_cells[row, which])
        return Windows(maps, self.index[row, which], self.xyz_map[row, which])


def refine_fine(
    coarse: LossMaps,
    xyz_map: Tensor,
    camera: Camera,
    poses: Pose,
    fine: Sequence[FineMaps],
    config: NreConfig,
    near: bool = False,
) -> tuple[Pose, Tensor, Windows | None]:
    """GNC in windows cut around the projections of ``poses`` (Q, H), cut anew as the poses improve.

    ``coarse`` maps and ``xyz_map`` (Q, N, 3) of Q queries, ``fine`` one source each. Returns the poses, their
    smoothed gains (Q, H) and the last windows, None when no round took place. Hypotheses with too few windows stay as
    they are, with a gain of zero. From poses nearby (``near``) the level between the rounds is left out: of 32 tracked
    poses the mean error is 0.0557 deg without it, 0.0546 with it.

    In the last round each map counts within ``config.fine_nats`` of its peak alone: mean rotation errors on real images
    (street, fox, terrace) are 10 to 17 % smaller. Synthetic bumps, which are what they say to the last slope, lose a
    fifth by it.
    """
    windows = None
    gains = xyz_map.new_zeros(poses.translation.shape[:2])
    for turn in range(config.fine_rounds):
        windows = cut_windows(coarse, xyz_map, camera, poses, fine, max(config.fine_window >> turn, 8), config.use_re)
        sigmas = _sigmas(turn, config)
        if near and config.fine_rounds > 1:
            sigmas = sigmas[:1]
        narrow = turn == config.fine_rounds - 1 and config.fine_nats > 0
        maps = windows.maps.narrowed(config.fine_nats) if narrow else windows.maps
        refined, summed = refine(maps, windows.xyz_map, camera, _alone(poses), sigmas)
        if narrow:
            summed = smoothed_total(windows.maps, windows.xyz_map, camera, refined, sigmas[-1])
        gains = summed[:, :, 0]
        poses = Pose(refined.rotation[:, :, 0], refined.translation[:, :, 0])
    return poses, gains, windows


def _sigmas(turn: int, config: NreConfig) -> tuple[float, ...]:
    """The first round goes from the first sigma to the one between, the last takes the last sigma alone."""
    if config.fine_rounds == 1:
        return sigma_levels(config.fine_sigma_max, config.fine_sigma_min)
    between = min(max(BETWEEN_SIGMA, config.fine_sigma_min), config.fine_sigma_max)
    if turn == 0:
        return sigma_levels(config.fine_sigma_max, between)
    return (config.fine_sigma_min,) if turn == config.fine_rounds - 1 else (between,)


def _alone(poses: Pose) -> Pose:
    """Poses (Q, H) as (Q, H, 1): each has windows of its own."""
    return Pose(poses.rotation[:, :, None], poses.translation[:, :, None])


def cut_windows(
    coarse: LossMaps,
    xyz_map: Tensor,
    camera: Camera,
    poses: Pose,
    fine: Sequence[FineMaps],
    window: int,
    use_re: bool = False,
) -> Windows:
    """Windows around the projections of ``poses`` (Q, H) of all points that the coarse maps expect there."""
    uv_px, visible = camera.project(poses.transform(xyz_map[:, None]))
    visible = visible & camera.contains(uv_px)
    uv_px = torch.where(visible[..., None], uv_px, torch.nan)
    mass = window_mass(coarse, uv_px, fine[0].grid.stride * (window // 2 + 0.5))
    mass = mass.masked_fill(~visible | (mass <= MIN_WINDOW_MASS), 0)
    enough = (mass > 0).sum(-1, keepdim=True) >= MIN_POINTS
    mass = mass * enough
    # only so many windows are cut as the hypothesis with most has (on CUDA all: counting would wait for it)
    most = len(coarse) if mass.is_cuda else max(int((mass > 0).sum(-1).max()), 1)
    chosen = (mass > 0).to(torch.int8).sort(dim=-1, descending=True, stable=True).indices[..., :most]
    mass = mass.take_along_dim(chosen, -1)
    centre = uv_px.take_along_dim(chosen[..., None], -2).masked_fill((mass == 0)[..., None], torch.nan)
    parts = [
        each.maps(index.flatten(), at.flatten(0, 1), share.flatten(), window)
        for each, index, at, share in zip(fine, chosen, centre, mass, strict=True)
    ]
    shape = chosen.shape
    gain = torch.stack([part.gain for part in parts])
    origin = torch.stack([part.origin_cells for part in parts]).view(*shape, 2)
    maps = LossMaps(gain.view(*shape, *gain.shape[-2:]), origin, parts[0].image_cells, parts[0].grid, parts[0].ceiling)
    points = xyz_map[:, None].expand(*shape[:2], *xyz_map.shape[1:]).take_along_dim(chosen[..., None], -2)
    return Windows(maps.one_hot() if use_re else maps, chosen, points)
