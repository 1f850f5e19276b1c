"""Descriptors as maps keep them: one byte a channel, one scale a vector."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LARGEST = 127


def quantised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (N, C) of any length as int8 (N, C) and scales (N,) float32; off by half a scale at most.

    A scale is its vector's largest magnitude over 127: measured on four scenes, poses are those of half precision
    within the noise of the sampler. A vector of zeros gets the scale 0.
    """
    values = values.float()
    scale = values.abs().amax(1) / LARGEST
    steps = values / torch.where(scale > 0, scale, 1)[:, None]
    return steps.round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def restored(stored: Tensor, scale: Tensor) -> Tensor:
    """Vectors (N, C) float32 of what :func:`quantised` made of them."""
    return stored.float() * scale[:, None]


def mean_of_each(parts: Iterable[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """Means (count, C) float32 of rows by their owners: ``parts`` are rows (S, C) and owners (S,) int64, one keyframe
    after the other. Every owner has a row."""
    total, times = torch.zeros(count, 0), torch.zeros(count)
    for rows, owner in parts:
        total = total if total.shape[1] else torch.zeros(count, rows.shape[1])
        total.index_add_(0, owner, rows.float())
        times += torch.bincount(owner, minlength=count)
    return total / times[:, None]
