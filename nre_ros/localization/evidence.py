"""What an image says of some of the map's landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.features import DenseFeatures
from nre_ros.localization.candidates import Candidates, describe
from nre_ros.mapping import Map
from nre_ros.nre import FineStage, LossMaps, coarse_loss_maps


@dataclass(frozen=True)
class Evidence:
    """The map's ``landmarks`` (N,), what it knows of them, their ``coarse`` loss maps over the image, and ``fine``,
    which makes the fine ones."""

    landmarks: Tensor
    candidates: Candidates
    coarse: LossMaps
    fine: FineStage


def evidence(map_: Map, landmarks: Tensor, seen: DenseFeatures, device: torch.device) -> Evidence:
    """Of ``landmarks`` (N,) in an image with the features ``seen``; raises as :func:`describe`."""
    candidates = describe(map_, landmarks, seen, device)
    coarse, fine = seen.coarse, seen.fine
    maps = coarse_loss_maps(candidates.coarse, coarse.values, coarse.inverse_temperature, coarse.grid)
    stage = FineStage(candidates.fine, fine.values, fine.inverse_temperature, fine.grid)
    return Evidence(landmarks, candidates, maps, stage)
