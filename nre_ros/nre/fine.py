"""The fine stage: loss maps at a small stride, in windows where the coarse maps leave the landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.geometry import Camera, CellGrid, Pose
from nre_ros.nre.gnc import refine, sigma_levels
from nre_ros.nre.loss_maps import LossMaps, fine_loss_maps, window_mass

MIN_POINTS = 4
MIN_WINDOW_MASS = 0.02
"""Landmarks that the coarse map gives less than this chance to be in their window take no part."""
BETWEEN_SIGMA = 1.0
"""Smoothing (cells) at which one round of windows hands over to the next."""


@dataclass(frozen=True)
class FineStage:
    """What fine windows are made of: the landmarks' ``descriptors`` (N, C) and the image's ``features`` (C, h, w)."""

    descriptors: Tensor
    features: Tensor
    inverse_temperature: float
    grid: CellGrid

    def maps(self, index: Tensor, centre_px: Tensor, prior_mass: Tensor, window: int) -> LossMaps:
        """Loss maps of the points ``index`` (M,) in windows around ``centre_px`` (M, 2)."""
        return fine_loss_maps(
            self.descriptors[index], self.features, self.inverse_temperature, self.grid, centre_px, prior_mass, window
        )


def refine_fine(
    coarse: LossMaps, xyz_map: Tensor, camera: Camera, pose: Pose, fine: FineStage, config: NreConfig
) -> tuple[Pose, LossMaps, Tensor] | None:
    """GNC in windows cut around the projections of ``pose`` (a batch of one), cut anew as the pose improves.

    Returns the pose, the last windows' maps and the index (M,) of their points; None when too few points have one.
    """
    result = None
    for turn in range(config.fine_rounds):
        window = max(config.fine_window >> turn, 8)
        uv_px, visible = camera.project(pose.transform(xyz_map))
        uv_px, visible = uv_px[0], visible[0] & camera.contains(uv_px[0])
        uv_px = torch.where(visible[:, None], uv_px, torch.nan)
        mass = window_mass(coarse, uv_px, fine.grid.stride * (window // 2 + 0.5))
        index = torch.nonzero(visible & (mass > MIN_WINDOW_MASS))[:, 0]
        if len(index) < MIN_POINTS:
            return result
        maps = fine.maps(index, uv_px[index], mass[index], window)
        first, last = turn == 0, turn == config.fine_rounds - 1
        sigmas = sigma_levels(
            config.fine_sigma_max if first else min(BETWEEN_SIGMA, config.fine_sigma_max),
            config.fine_sigma_min if last else max(BETWEEN_SIGMA, config.fine_sigma_min),
        )
        pose, _ = refine(maps, xyz_map[index], camera, pose, sigmas)
        result = (pose, maps, index)
    return result
