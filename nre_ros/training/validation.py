"""How well descriptors find true matches they were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nre_ros.features.compact import CompactNet
from nre_ros.training.config import TrainingConfig
from nre_ros.training.loss import FINE, Correlation, correlate, dense_descriptors
from nre_ros.training.pairs import Batch, Pair, PairSource, make_batch
from nre_ros.training.photometric import STRONG, degrade

_SEED = 77
_TRIES = 50


@dataclass(frozen=True)
class Score:
    """Of one set of pairs, both directions.

    ``coarse16`` and ``coarse8`` are the shares of points whose largest cell is the true one or a neighbour of it.
    ``fine_px`` is the median error of the largest fine cell in a window about the coarse one, where that was right; NaN
    where none was. ``nre16`` and ``nre8`` are the mean NRE as a share of ln|Omega|, which is that of a map that says
    nothing.
    """

    coarse16: float
    coarse8: float
    fine_px: float
    nre16: float
    nre8: float

    def __str__(self) -> str:
        return (
            f"coarse within 1 cell {self.coarse16:.3f} / {self.coarse8:.3f} (stride 16 / 8), "
            f"fine {self.fine_px:.3f} px, NRE {self.nre16:.3f} / {self.nre8:.3f} of ln|Omega|"
        )


def fixed_pairs(source: PairSource, count: int, config: TrainingConfig, *, strong: bool) -> list[Pair]:
    """The same pairs every time; with ``strong``, one image of each is dim, blurred or noisy. Fewer if tries fail."""
    pairs: list[Pair] = []
    for number in range(count):
        rng = np.random.default_rng([_SEED, number])
        drawn = (source.draw(rng, config.pairs.width, config.pairs.height) for _ in range(_TRIES))
        pair = next((p for p in drawn if p is not None), None)
        if pair is not None:
            image_b = degrade(pair.image_b, rng, STRONG) if strong else pair.image_b
            pairs.append(Pair(pair.image_a, image_b, pair.uv_a_px, pair.uv_b_px))
    return pairs


@torch.inference_mode()
def validate(net: CompactNet, sets: Mapping[str, Sequence[Pair]], config: TrainingConfig) -> dict[str, Score]:
    """Scores of a network, which is put into eval mode, on sets of pairs; empty sets are left out."""
    net.eval()
    device = next(net.parameters()).device
    return {name: _score(net, pairs, config, device) for name, pairs in sets.items() if pairs}


def _score(net: CompactNet, pairs: Sequence[Pair], config: TrainingConfig, device: torch.device) -> Score:
    parts = []
    for start in range(0, len(pairs), config.batch):
        rng = np.random.default_rng(_SEED)
        batch = make_batch(pairs[start : start + config.batch], config.pairs.points, 0.0, rng).to(device)
        maps = dense_descriptors(net, batch.images, bf16=False)
        real = batch.weight.repeat(2, 1) > 0
        found = {s: correlate(maps[s], batch.uv_px, s, net.log_inverse_temperature[str(s)].exp()) for s in maps}
        parts.append(_figures(found, batch, config.loss.fine_window_px)[:, real])
    near16, near8, fine, nre16, nre8 = torch.cat(parts, 1).cpu().numpy()
    right = fine[near8 > 0]
    fine_px = float(np.median(right)) if len(right) else float("nan")
    return Score(float(near16.mean()), float(near8.mean()), fine_px, float(nre16.mean()), float(nre8.mean()))


def _figures(found: dict[int, Correlation], batch: Batch, window_px: int) -> Tensor:
    """For each point (5, 2B, N): right at 16 and at 8, fine error in px, relative NRE at 16 and at 8."""
    near, relative = {}, {}
    for stride in (16, 8):
        best = _best_cell(found[stride].logits)
        near[stride] = ((best - found[stride].cell).abs().amax(-1) <= 1.0).float()
        relative[stride] = found[stride].nre() / np.log(found[stride].logits[0, 0].numel() + 1)
    around_px = found[8].grid.pixel_from_cell(_best_cell(found[8].logits))
    fine = found[FINE]
    height, width = fine.logits.shape[-2:]
    middle = fine.grid.cell_from_pixel(around_px)
    half = window_px / FINE / 2
    far_x = (torch.arange(width, device=middle.device) - middle[..., :1]).abs() > half
    far_y = (torch.arange(height, device=middle.device) - middle[..., 1:]).abs() > half
    windowed = fine.logits.masked_fill(far_x[..., None, :] | far_y[..., :, None], -torch.inf)
    error_px = (_best_cell(windowed) - fine.cell).norm(dim=-1) * FINE
    return torch.stack([near[16], near[8], error_px, relative[16], relative[8]])


def _best_cell(logits: Tensor) -> Tensor:
    """x, y (..., 2) of the largest of (..., h, w), float."""
    index = logits.flatten(-2).argmax(-1)
    width = logits.shape[-1]
    return torch.stack([index % width, index // width], -1).float()
