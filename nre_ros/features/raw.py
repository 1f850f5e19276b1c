"""What the networks of the literature share: ImageNet's colour statistics, descriptors that are used as they come."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.errors import ModelError
from nre_ros.features.maps import FeatureMap
from nre_ros.geometry import CellGrid

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_LARGEST_STORED = torch.finfo(torch.float16).max


def imagenet_batch(image_rgb: np.ndarray, device: torch.device) -> Tensor:
    """An image, uint8 (H, W, 3), as (1, 3, H, W) float32 with ImageNet's mean and deviation taken out."""
    image = torch.tensor(image_rgb, device=device).permute(2, 0, 1)[None].to(torch.float32) / 255
    mean, deviation = (image.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
    return ((image - mean) / deviation).contiguous(memory_format=torch.channels_last)


def raw_map(values: Tensor, grid: CellGrid, name: str) -> FeatureMap:
    """Descriptors (C, h, w) that were trained by their raw dot products: no length, no temperature.

    Raises ModelError when they do not fit into the half precision of maps; NaN does not either.
    """
    largest = float(values.abs().amax())
    if not largest <= _LARGEST_STORED:
        raise ModelError(
            f"network {name!r} gives descriptors of up to {largest:g}, maps store at most {_LARGEST_STORED:g}; "
            "its weights are damaged or were not trained"
        )
    return FeatureMap(values, grid, inverse_temperature=1.0, unit=False)


def context_of(coarse: FeatureMap) -> FeatureMap:
    """For retrieval, which compares directions: the coarse map in unit descriptors."""
    return FeatureMap(F.normalize(coarse.values, dim=0), coarse.grid, coarse.inverse_temperature)
