"""The loss against its definition, and its gradient against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training_scenes import coordinate_photo, small_config, texture

from nre_ros.features.compact import CompactNet
from nre_ros.training.config import LossConfig
from nre_ros.training.loss import PairLoss, correlate, loss_of
from nre_ros.training.pairs import Batch, Pair, make_batch

pytest_plugins = ["training_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

SCALE = 7.0


def random_maps(height: int = 6, width: int = 9, pairs: int = 2) -> torch.Tensor:
    values = torch.randn(2 * pairs, 5, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return F.normalize(values, dim=1)


def random_points(maps: torch.Tensor, stride: int, count: int = 4) -> torch.Tensor:
    size = torch.tensor([maps.shape[-1] - 1, maps.shape[-2] - 1]) * stride
    unit = torch.rand(len(maps), count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return unit * size + (stride - 1) / 2


def read(values: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear reading of (..., h, w) between cells."""
    i, j = min(int(y), values.shape[-2] - 2), min(int(x), values.shape[-1] - 2)
    s, t = x - j, y - i
    upper = (1 - s) * values[..., i, j] + s * values[..., i, j + 1]
    lower = (1 - s) * values[..., i + 1, j] + s * values[..., i + 1, j + 1]
    return (1 - t) * upper + t * lower


def naive_nre(
    maps: torch.Tensor, uv_px: torch.Tensor, stride: int, window: torch.Tensor | None, side: int
) -> np.ndarray:
    """-ln C at the true place, point by point: Eq. 5 and the loss of Eq. 10."""
    count, values = len(maps) // 2, maps.numpy()
    result = np.zeros(uv_px.shape[:2])
    for image in range(len(maps)):
        other = (image + count) % len(maps)
        for point in range(uv_px.shape[1]):
            x, y = ((uv_px[image, point] - (stride - 1) / 2) / stride).tolist()
            descriptor = read(values[image], x, y)
            descriptor = SCALE * descriptor / np.linalg.norm(descriptor)
            logits = np.einsum("c,chw->hw", descriptor, values[other])
            taking_part = np.ones(logits.shape, bool)
            if window is not None:
                first = np.rint((window[other, point].numpy() - (stride - 1) / 2) / stride - (side - 1) / 2).astype(int)
                taking_part[:] = False
                taking_part[max(first[1], 0) : first[1] + side, max(first[0], 0) : first[0] + side] = True
            log_probability = logits - np.log(np.exp(logits[taking_part]).sum())
            tx, ty = ((uv_px[other, point] - (stride - 1) / 2) / stride).tolist()
            result[image, point] = -read(log_probability, tx, ty)
    return result


@pytest.mark.parametrize("stride", [2, 8])
def test_nre_is_what_eq_10_says(stride: int) -> None:
    maps = random_maps()
    uv = random_points(maps, stride)
    found = correlate(maps, uv, stride, torch.tensor(SCALE, dtype=torch.float64)).nre()
    np.testing.assert_allclose(found.numpy(), naive_nre(maps, uv, stride, None, 0), atol=1e-9)


def test_windowed_nre_takes_part_of_the_map() -> None:
    maps = random_maps(12, 14)
    uv = random_points(maps, 2)
    window = uv + 2 * torch.rand(uv.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 1
    found = correlate(maps, uv, 2, torch.tensor(SCALE, dtype=torch.float64)).windowed_nre(window, 12)
    np.testing.assert_allclose(found.numpy(), naive_nre(maps, uv, 2, window, 6), atol=1e-9)


def test_gradient_is_right() -> None:
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    uv = random_points(maps, 2, 2)

    def loss(values: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        found = correlate(F.normalize(values, dim=1), uv, 2, temperature)
        return found.nre().sum() + found.windowed_nre(uv + 0.3, 6).sum()

    assert torch.autograd.gradcheck(loss, (maps, scale))


def test_a_map_that_says_nothing_costs_the_log_of_its_cells() -> None:
    maps = torch.ones(2, 4, 5, 7, dtype=torch.float64) / 2
    found = correlate(maps, random_points(maps, 8), 8, torch.tensor(20.0, dtype=torch.float64)).nre()
    torch.testing.assert_close(found, torch.full_like(found, math.log(35)))


def test_a_map_that_knows_costs_nearly_nothing() -> None:
    maps = torch.eye(35, dtype=torch.float64).reshape(1, 35, 5, 7).repeat(2, 1, 1, 1)
    cells = torch.tensor([[[2.0, 3.0], [6.0, 4.0]]], dtype=torch.float64).repeat(2, 1, 1)
    found = correlate(maps, cells * 8 + 3.5, 8, torch.tensor(30.0, dtype=torch.float64)).nre()
    assert float(found.max()) < 1e-9


def batch_of(points: int, width: int = 96, height: int = 64) -> Batch:
    rng = np.random.default_rng(0)
    uv = rng.uniform(0, [width - 1, height - 1], (points, 2)).astype(np.float32)
    pairs = [Pair(texture(s, width, height), coordinate_photo(width, height), uv, uv[::-1].copy()) for s in range(2)]
    return make_batch(pairs, 16, 8.0, rng)


def test_terms_make_the_loss_and_padding_does_not_count() -> None:
    config = LossConfig(fine_full_weight=0.5, fine_full_every=1)
    torch.manual_seed(0)
    module = PairLoss(CompactNet().eval(), config, bf16=False)
    batch = batch_of(10)
    loss, terms = loss_of(module, batch)
    total = terms["nre16"] + terms["nre8"] + terms["fine_window"] + 0.5 * terms["fine_full"]
    torch.testing.assert_close(loss.detach(), total)
    moved = batch.uv_px.clone()
    moved[:, 10:] = 33.0
    same, _ = loss_of(module, Batch(batch.images, moved, batch.window_px, batch.weight))
    torch.testing.assert_close(same, loss)


def test_both_directions_count_alike() -> None:
    module = PairLoss(CompactNet().eval(), small_config().loss, bf16=False)
    batch = batch_of(16)
    swapped = Batch(*(t.roll(2, 0) for t in (batch.images, batch.uv_px, batch.window_px)), batch.weight)
    torch.testing.assert_close(loss_of(module, swapped)[0], loss_of(module, batch)[0])
