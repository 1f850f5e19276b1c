"""S2DNet (Germain, Bourmaud, Lepetit, ECCV 2020): VGG-16, and small adaptation layers at several of its depths.

Layers and names are those of the official checkpoint (github.com/germain-hug/S2DNet-Minimal), which fills them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nre_ros.errors import ModelError
from nre_ros.features.checkpoints import Checkpoint
from nre_ros.features.maps import DenseFeatures, FeatureMap, crop_to_image
from nre_ros.features.raw import context_of, imagenet_batch, raw_map
from nre_ros.geometry import CellGrid

NAME = "s2dnet"
HYPERCOLUMN = ("conv1_2", "conv3_3", "conv5_3")
DESCRIPTOR_SIZE = 128
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_BLOCK_PX = 16
"""Side of the cells behind VGG-16's last pooling but one; the last is left out."""


@dataclass(frozen=True)
class Tap:
    """Where VGG-16 is read: behind module ``index`` of the encoder, with ``channels`` at ``stride``."""

    index: int
    channels: int
    stride: int


def _encoder() -> tuple[nn.Sequential, dict[str, Tap]]:
    """VGG-16 up to conv5_3, and where its layers are read. Its ReLUs work in place, in training too: whoever holds the
    output of a convolution finds it rectified, so a convolution is read behind its ReLU; conv5_3 has none."""
    modules: list[nn.Module] = []
    taps = {}
    inputs = 3
    for stage, widths in enumerate(_VGG16, 1):
        stride = 1 << (stage - 1)
        for i, width in enumerate(widths, 1):
            modules += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            taps[f"conv{stage}_{i}"] = taps[f"relu{stage}_{i}"] = Tap(len(modules) - 1, width, stride)
            inputs = width
        taps[f"pool{stage}"] = Tap(len(modules), inputs, 2 * stride)
        modules.append(nn.MaxPool2d(2, 2))
    del modules[-2:], taps["pool5"], taps["relu5_3"]
    taps["conv5_3"] = Tap(len(modules) - 1, inputs, taps["conv5_3"].stride)
    return nn.Sequential(*modules), taps


class S2DNet(nn.Module):
    """Images (B, 3, H, W), normalised by ImageNet's statistics, to raw descriptors (B, 128, h, w) at several depths.

    Raises ModelError for layers that VGG-16 does not have, or not in this order.
    """

    def __init__(self, hypercolumn_layers: Sequence[str] = HYPERCOLUMN):
        super().__init__()
        self.encoder, known = _encoder()
        self.taps = [known[name] for name in hypercolumn_layers if name in known]
        depths = [tap.index for tap in self.taps]
        if not depths or len(depths) < len(hypercolumn_layers) or depths != sorted(set(depths)):
            raise ModelError(f"hypercolumn_layers {list(hypercolumn_layers)} are not layers of VGG-16, in its order")
        self.adaptation_layers = nn.ModuleDict(
            {f"adap_layer_{i}": _adaptation(tap.channels) for i, tap in enumerate(self.taps)}
        )

    def forward(self, image: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """Descriptors of the layers ``wanted``, counted from 0 as in ``hypercolumn_layers``."""
        depth = {self.taps[i].index: i for i in wanted}
        found = {}
        x = image
        for index in range(max(depth) + 1):
            x = self.encoder[index](x)
            if index in depth:
                found[depth[index]] = self.adaptation_layers[f"adap_layer_{depth[index]}"](x)
        return found


def _adaptation(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 64, 1),
        nn.ReLU(),
        nn.Conv2d(64, DESCRIPTOR_SIZE, 5, padding=2),
        nn.BatchNorm2d(DESCRIPTOR_SIZE),
    )


class S2DNetFeatures:
    """:class:`S2DNet` behind the common interface.

    Coarse is the deepest layer (stride 16). Fine is the first layer of at least stride 2 (conv3_3, stride 4) with the
    deepest, interpolated, below it: the dot product of two such hypercolumns is the sum of both layers' correlation
    maps, by which S2DNet was trained. Its layer at stride 1 is left out: a descriptor at every pixel takes 0.6 GB at
    1280 x 960.
    """

    def __init__(self, net: S2DNet, weights_hash: str, device: torch.device):
        self.name = NAME
        self.weights_hash = weights_hash
        self.device = device
        self._net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._deep = len(net.taps) - 1
        self._fine = next((i for i, tap in enumerate(net.taps) if tap.stride > 1), self._deep)

    @torch.inference_mode()
    def extract(self, image_rgb: np.ndarray) -> DenseFeatures:
        """As the interface says; raises ModelError when the weights give numbers that no map can hold."""
        height, width = image_rgb.shape[:2]
        image = imagenet_batch(image_rgb, self.device)
        padded = F.pad(image, (0, -width % _BLOCK_PX, 0, -height % _BLOCK_PX), mode="replicate")
        values = self._net(padded.contiguous(memory_format=torch.channels_last), {self._fine, self._deep})
        deep, column = values[self._deep], values[self._fine]
        if self._fine != self._deep:
            below = F.interpolate(deep, size=column.shape[-2:], mode="bilinear", align_corners=False)
            column = torch.cat([column, below], 1)
        coarse = self._map(deep[0], self._deep, height, width)
        return DenseFeatures(coarse, self._map(column[0], self._fine, height, width), context_of(coarse))

    def _map(self, values: Tensor, layer: int, height: int, width: int) -> FeatureMap:
        stride = self._net.taps[layer].stride
        # 2 x 2 poolings: a cell is centred on its block of pixels
        grid = CellGrid(stride, (stride - 1) / 2)
        return raw_map(crop_to_image(values, grid, height, width), grid, NAME)


def load_s2dnet(checkpoints: Sequence[Checkpoint], device: torch.device) -> S2DNetFeatures:
    """From one checkpoint, whose ``hypercolumn_layers`` are honoured; raises ModelError when it is not of S2DNet."""
    if len(checkpoints) != 1:
        raise ModelError(
            f"network {NAME!r} needs one file of weights, got {len(checkpoints)}; none comes with this package, give "
            "that of github.com/germain-hug/S2DNet-Minimal (--weights s2dnet_weights.pth, parameter weights)"
        )
    (checkpoint,) = checkpoints
    layers = checkpoint.settings.get("hypercolumn_layers", HYPERCOLUMN)
    try:
        net = S2DNet([str(name) for name in layers])
    except (ModelError, TypeError) as error:
        raise ModelError(f"weights {checkpoint.source} are of no known network: {error}") from error
    checkpoint.fill(net, NAME)
    return S2DNetFeatures(net, checkpoint.digest[:16], device)
