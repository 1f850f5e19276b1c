"""PixLoc's network (Sarlin et al., CVPR 2021): VGG-19, a U-Net decoder, features with confidences at three strides.

Layers and names are those of the official checkpoints (github.com/cvg/pixloc), which fill them. It makes no maps: its
features serve to align a pose that is roughly known, see :mod:`nre_ros.nre.fpr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nre_ros.features.checkpoints import read_checkpoint
from nre_ros.features.maps import FeatureMap, crop_to_image
from nre_ros.features.raw import imagenet_batch
from nre_ros.geometry import CellGrid

NAME = "pixloc"
STRIDES = (1, 4, 16)
DESCRIPTOR_SIZES = (32, 128, 128)
_VGG19 = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512))
_DECODER = (64, 64, 64, 32)
_BLOCK_PX = 16
_DAMPING_EXPONENTS = (-6.0, 5.0)
"""Of ten: what the learned damping may be."""


class _DecoderBlock(nn.Module):
    """What is coarser, at twice its size, beside what the encoder saw at that size."""

    def __init__(self, coarse: int, skip: int, outputs: int):
        super().__init__()
        convolution = nn.Conv2d(coarse + skip, outputs, 3, padding=1, bias=False)
        self.layers = nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        raised = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.layers(torch.cat([raised, skip], 1))


class UNet(nn.Module):
    """Images (B, 3, H, W), normalised by ImageNet's statistics, H and W multiples of 16, to raw features
    (B, C, h, w) and confidences (B, 1, h, w), finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder()
        widths = [stage[-1] for stage in _VGG19]
        coarser = [widths[-1], *_DECODER]
        self.decoder = nn.ModuleList(
            _DecoderBlock(before, skip, after)
            for before, skip, after in zip(coarser, widths[-2::-1], _DECODER, strict=False)
        )
        inputs = (_DECODER[3], _DECODER[1], widths[4])  # strides 1, 4 and 16
        self.adaptation = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, size, 1)) for width, size in zip(inputs, DESCRIPTOR_SIZES, strict=True)
        )
        self.uncertainty = nn.ModuleList(nn.Sequential(nn.Conv2d(width, 1, 1)) for width in inputs)

    def forward(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        skips = []
        x = image
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        scales = [x]
        for block, skip in zip(self.decoder, skips[-2::-1], strict=True):
            scales.append(block(scales[-1], skip))
        seen = [scales[-1 - stride.bit_length() + 1] for stride in STRIDES]
        return [
            (adapt(x), torch.sigmoid(-doubt(x)))
            for adapt, doubt, x in zip(self.adaptation, self.uncertainty, seen, strict=True)
        ]


def _encoder() -> nn.ModuleList:
    """VGG-19 cut in front of every pooling but the last, which is left out."""
    blocks = []
    inputs = 3
    for stage, widths in enumerate(_VGG19):
        modules: list[nn.Module] = [nn.MaxPool2d(2, 2)] if stage else []
        for width in widths:
            modules += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        blocks.append(nn.Sequential(*modules))
    return nn.ModuleList(blocks)


class _Damping(nn.Module):
    """``const`` (6,), translation first, as in the checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.zeros(6))


class _Optimizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dampingnet = _Damping()


class PixLocNet(nn.Module):
    """Network and learned dampings, one a stride, under the names of the checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.extractor = UNet()
        self.optimizer = nn.ModuleList(_Optimizer() for _ in STRIDES)

    def dampings(self) -> list[Tensor]:
        """(6,) of every stride, rotation first, in the unit of :attr:`nre_ros.nre.fpr.FeatureLevel.damping`."""
        low, high = _DAMPING_EXPONENTS
        found = []
        for optimizer in self.optimizer:
            assert isinstance(optimizer, _Optimizer)
            exponent = low + (high - low) * optimizer.dampingnet.const.detach().double().sigmoid()
            found.append((10.0**exponent).roll(3))
        return found


@dataclass(frozen=True)
class ConfidentMap:
    """Unit features at one stride and how far they are to be trusted: ``confidence`` (h, w), 0 to 1."""

    features: FeatureMap
    confidence: Tensor


class PixLocFeatures:
    """:class:`PixLocNet` ready for inference. ``dampings``: one a level, as :meth:`levels` gives them."""

    def __init__(self, net: PixLocNet, device: torch.device):
        self.device = device
        self.dampings = [damping.to(device) for damping in net.dampings()][::-1]
        self._net = net.extractor.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def levels(self, image_rgb: np.ndarray) -> list[ConfidentMap]:
        """Of an image, uint8 (H, W, 3); coarsest first."""
        height, width = image_rgb.shape[:2]
        image = imagenet_batch(image_rgb, self.device)
        padded = F.pad(image, (0, -width % _BLOCK_PX, 0, -height % _BLOCK_PX), mode="replicate")
        found = []
        for stride, (values, confidence) in zip(STRIDES, self._net(padded), strict=True):
            grid = CellGrid(stride, (stride - 1) / 2)  # 2 x 2 poolings
            unit = F.normalize(crop_to_image(values[0], grid, height, width), dim=0)
            features = FeatureMap(unit, grid, inverse_temperature=1.0)
            found.append(ConfidentMap(features, crop_to_image(confidence[0], grid, height, width)[0]))
        return found[::-1]


def load_pixloc(path: str | Path, device: torch.device) -> PixLocFeatures:
    """From an official checkpoint (``checkpoint_best.tar``) or a state in safetensors; no code of the file is run.

    Raises ModelError when it cannot be read or is of another network.
    """
    net = PixLocNet()
    read_checkpoint(Path(path)).fill(net, NAME)
    return PixLocFeatures(net, device)
