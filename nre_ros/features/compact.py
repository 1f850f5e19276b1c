"""The compact descriptor network: 1.9 M parameters, descriptors at strides 16, 8 and 2 from one pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (16, 8, 2)
DESCRIPTOR_SIZES = {16: 256, 8: 128, 2: 32}
_WIDTHS = {2: 32, 4: 48, 8: 96, 16: 144, 32: 144}


class ConvBlock(nn.Module):
    """Convolution, batch norm and (unless told otherwise) ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1, relu: bool = True
    ):
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=not self.training) if self.relu else x

    def fold(self) -> None:
        """Fold the batch norm into the convolution: same output in eval mode, less work; no training after."""
        assert isinstance(self.conv, nn.Conv2d) and isinstance(self.norm, nn.BatchNorm2d)
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


def _sum(a: Tensor, b: Tensor, in_place: bool) -> Tensor:
    return a.add_(b) if in_place else a + b


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first = ConvBlock(width, width)
        self.second = ConvBlock(width, width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y = _sum(self.second(self.first(x)), x, in_place=not self.training)
        return F.relu(y, inplace=not self.training)


class Merge(nn.Module):
    """Add a coarser level, upsampled, to a finer one, and mix."""

    def __init__(self, coarse: int, fine: int, lateral: bool, mix: nn.Module):
        super().__init__()
        self.reduce = nn.Conv2d(coarse, fine, 1)
        self.lateral = nn.Conv2d(fine, fine, 1) if lateral else nn.Identity()
        self.mix = mix

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        raised = F.interpolate(self.reduce(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(_sum(raised, self.lateral(fine), in_place=not self.training))


class CompactNet(nn.Module):
    """Images (B, 3, H, W), RGB in [0, 1], H and W multiples of 32, to ``{stride: (B, C, H/stride, W/stride)}``.

    Descriptors have unit length; ``log_inverse_temperature`` (learned with Eq. 10) holds the logits' scale of each
    stride. Cell x of stride s covers pixels s*x to s*x+s-1, so its centre is pixel s*x + (s-1)/2.
    """

    def __init__(self) -> None:
        super().__init__()
        w = _WIDTHS
        self.down2 = ConvBlock(3, w[2], kernel=6, stride=2, padding=2)
        self.down4 = nn.Sequential(ConvBlock(w[2], w[4], 2, 2, 0), Residual(w[4]))
        self.down8 = nn.Sequential(ConvBlock(w[4], w[8], 2, 2, 0), Residual(w[8]), Residual(w[8]))
        self.down16 = nn.Sequential(ConvBlock(w[8], w[16], 2, 2, 0), Residual(w[16]))
        self.down32 = nn.Sequential(ConvBlock(w[16], w[32], 2, 2, 0), Residual(w[32]))
        self.up16 = Merge(w[32], w[16], lateral=False, mix=Residual(w[16]))
        self.up8 = Merge(w[16], w[8], lateral=True, mix=ConvBlock(w[8], w[8]))
        self.up4 = Merge(w[8], w[4], lateral=True, mix=ConvBlock(w[4], w[4]))
        self.up2 = Merge(w[4], w[2], lateral=True, mix=ConvBlock(w[2], w[2]))
        self.heads = nn.ModuleDict({str(s): nn.Conv2d(w[s], DESCRIPTOR_SIZES[s], 1) for s in STRIDES})
        self.log_inverse_temperature = nn.ParameterDict({str(s): nn.Parameter(torch.tensor(2.7)) for s in STRIDES})

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        x2 = self.down2(image)
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        y16 = self.up16(self.down32(x16), x16)
        y8 = self.up8(y16, x8)
        y2 = self.up2(self.up4(y8, x4), x2)
        levels = {16: y16, 8: y8, 2: y2}
        return {s: F.normalize(self.heads[str(s)](y).float(), dim=1) for s, y in levels.items()}

    def fold_batch_norms(self) -> CompactNet:
        """For inference only, in place."""
        for module in self.modules():
            if isinstance(module, ConvBlock):
                module.fold()
        return self


def normalize_image(image: Tensor) -> Tensor:
    """Zero mean and unit deviation over the whole image (B, 3, H, W): exposure and gain drop out."""
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) / (image.std((1, 2, 3), keepdim=True) + 1e-3)
