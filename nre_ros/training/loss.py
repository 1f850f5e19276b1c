"""The Neural Reprojection Error of true matches as a training loss (Eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nre_ros.features.compact import STRIDES, CompactNet, normalize_image
from nre_ros.geometry import CellGrid
from nre_ros.training.config import LossConfig
from nre_ros.training.pairs import Batch

FINE = min(STRIDES)
COARSE = tuple(s for s in STRIDES if s != FINE)


class PairLoss(nn.Module):
    """The loss of a batch; a module, so that data-parallel wrappers see the whole computation."""

    def __init__(self, net: CompactNet, config: LossConfig, *, bf16: bool) -> None:
        super().__init__()
        self.net = net
        self._config = config
        self._bf16 = bf16

    def forward(
        self, images: Tensor, uv_px: Tensor, window_px: Tensor, weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Fields of :class:`Batch`. Returns the loss, and its terms (detached) by name."""
        maps = dense_descriptors(self.net, images, self._bf16)
        terms: dict[str, Tensor] = {}
        for stride in COARSE:
            terms[f"nre{stride}"] = _mean(self._correlate(maps, uv_px, stride).nre(), weight)
        fine = self._correlate(maps, uv_px, FINE)
        terms["fine_window"] = _mean(fine.windowed_nre(window_px, self._config.fine_window_px), weight)
        few = self._config.fine_full_every
        terms["fine_full"] = _mean(fine.every(few).nre(), weight[:, ::few])
        loss = sum((terms[f"nre{s}"] for s in COARSE), terms["fine_window"])
        loss = loss + self._config.fine_full_weight * terms["fine_full"]
        return loss, {name: term.detach() for name, term in terms.items()}

    def _correlate(self, maps: dict[int, Tensor], uv_px: Tensor, stride: int) -> Correlation:
        return correlate(maps[stride], uv_px, stride, self.net.log_inverse_temperature[str(stride)].exp())


def quick_in_bf16(device: torch.device) -> bool:
    """Whether bfloat16 saves time there: a step took eight times as long as in float32 on a CPU with AVX2 alone."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def dense_descriptors(net: CompactNet, images: Tensor, bf16: bool) -> dict[int, Tensor]:
    """Maps of uint8 images (2B, 3, H, W), float32 whatever the network computed in."""
    scaled = normalize_image(images.float() / 255).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        maps: dict[int, Tensor] = net(scaled)
    return maps


@dataclass(frozen=True)
class Correlation:
    """Of every point with every cell of the other image.

    ``logits`` (2B, N, h, w), ``true_logit`` (2B, N) read bilinearly at the true places ``cell`` (2B, N, 2). The first B
    are points of a asked of b, the others points of b asked of a.
    """

    logits: Tensor
    true_logit: Tensor
    cell: Tensor
    grid: CellGrid

    def nre(self) -> Tensor:
        """-ln C at the true place (2B, N), C the softmax over the whole map (Eq. 5), read bilinearly (Eq. 10)."""
        return self.logits.flatten(2).logsumexp(-1) - self.true_logit

    def every(self, step: int) -> Correlation:
        """Of every ``step``-th point only."""
        return Correlation(self.logits[:, ::step], self.true_logit[:, ::step], self.cell[:, ::step], self.grid)

    def windowed_nre(self, window_px: Tensor, side_px: int) -> Tensor:
        """As :meth:`nre` (2B, N) with the softmax over a window about ``window_px`` (2B, N, 2), in the order of the
        batch, which must hold the true place; its rim beyond the map takes no part."""
        height, width = self.logits.shape[-2:]
        side = round(side_px / self.grid.stride)
        first = (self.grid.cell_from_pixel(_swapped(window_px)) - (side - 1) / 2).round().long()
        steps = torch.arange(side, device=first.device)
        x, y = first[..., :1] + steps, first[..., 1:] + steps
        on_x, on_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
        index = y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :]
        window = self.logits.flatten(2).gather(-1, index.flatten(2))
        outside = ~(on_y[..., :, None] & on_x[..., None, :]).flatten(2)
        return window.masked_fill(outside, -torch.inf).logsumexp(-1) - self.true_logit


def correlate(maps: Tensor, uv_px: Tensor, stride: int, inverse_temperature: Tensor) -> Correlation:
    """Correlate descriptors at points (2B, N, 2) of maps (2B, C, h, w) with the maps of the other halves."""
    grid = CellGrid(stride, (stride - 1) / 2)
    height, width = maps.shape[-2:]
    upper = uv_px.new_tensor([width - 1, height - 1])
    cell = grid.cell_from_pixel(uv_px).clamp(min=torch.zeros_like(upper), max=upper)
    where = (cell / upper.clamp(min=1) * 2 - 1)[:, None]
    read = F.grid_sample(maps, where, align_corners=True)[:, :, 0].transpose(1, 2)
    descriptors = F.normalize(read, dim=2) * inverse_temperature
    logits = torch.bmm(descriptors, _swapped(maps).flatten(2)).unflatten(-1, (height, width))
    # logits are linear in the map: reading them between cells is to correlate with the map read there
    true_logit = (descriptors * _swapped(read)).sum(-1)
    return Correlation(logits, true_logit, _swapped(cell), grid)


def loss_of(module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Call a :class:`PairLoss`, wrapped or not."""
    result: tuple[Tensor, dict[str, Tensor]] = module(batch.images, batch.uv_px, batch.window_px, batch.weight)
    return result


def _swapped(values: Tensor) -> Tensor:
    """The halves (2B, ...) exchanged: what belongs to b where a was."""
    return torch.cat(values.chunk(2)[::-1])


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    doubled = weight.repeat(2, 1)
    return (values * doubled).sum() / doubled.sum().clamp(min=1)
