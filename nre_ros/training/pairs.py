"""Pairs of images with points that are the same thing in both, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """Two images uint8 (H, W, 3) of one size, and where N points are: ``uv_a_px`` and ``uv_b_px`` (N, 2) float32.

    Every point lies in both images and is hidden in neither.
    """

    image_a: np.ndarray
    image_b: np.ndarray
    uv_a_px: np.ndarray
    uv_b_px: np.ndarray

    def keep(self, mask: np.ndarray) -> Pair:
        return Pair(self.image_a, self.image_b, self.uv_a_px[mask], self.uv_b_px[mask])


class PairSource(Protocol):
    """Makes pairs of one kind. ``corrupt`` names the files that could not be read so far."""

    corrupt: set[str]

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Pair | None:
        """A pair of crops of this size, all that is random taken from ``rng``; None when this try gave none."""
        ...


@dataclass(frozen=True)
class Batch:
    """B pairs. ``images`` uint8 (2B, 3, H, W), first all of a, then all of b; ``uv_px`` (2B, N, 2) float32.

    ``window_px`` (2B, N, 2) are the centres of the fine windows, near the points. ``weight`` (B, N) is 0 for the
    padding of pairs with fewer points, else 1. ``corrupt`` names the unreadable files met on the way.
    """

    images: Tensor
    uv_px: Tensor
    window_px: Tensor
    weight: Tensor
    corrupt: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        images, uv_px = self.images.to(device), self.uv_px.to(device)
        return Batch(images, uv_px, self.window_px.to(device), self.weight.to(device), self.corrupt)


def make_batch(
    pairs: Sequence[Pair], points: int, jitter_px: float, rng: np.random.Generator, corrupt: Sequence[str] = ()
) -> Batch:
    """Stack pairs of one size; of pairs with more than ``points`` points that many are chosen at random."""
    count, size = len(pairs), pairs[0].image_a.shape
    images = np.empty((2 * count, *size), np.uint8)
    uv: np.ndarray = np.zeros((2 * count, points, 2), np.float32)
    weight: np.ndarray = np.zeros((count, points), np.float32)
    for i, pair in enumerate(pairs):
        chosen = rng.permutation(len(pair.uv_a_px))[:points]
        images[i], images[count + i] = pair.image_a, pair.image_b
        uv[i, : len(chosen)], uv[count + i, : len(chosen)] = pair.uv_a_px[chosen], pair.uv_b_px[chosen]
        weight[i, : len(chosen)] = 1
    window = uv + rng.uniform(-jitter_px, jitter_px, uv.shape).astype(np.float32)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return Batch(planes, torch.from_numpy(uv), torch.from_numpy(window), torch.from_numpy(weight), tuple(corrupt))


def inside(uv_px: np.ndarray, width: int, height: int, border_px: float = 0.0) -> np.ndarray:
    """Mask (N,) of pixels (N, 2) that lie on an image, ``border_px`` from its outermost pixel centres."""
    upper = np.array([width - 1 - border_px, height - 1 - border_px])
    return np.all((uv_px >= border_px) & (uv_px <= upper), axis=-1)
