"""The two networks of the NRE paper, after Inception-v3: coarse (Mixed_7a, 1280-d) and fine (Mixed_5d, 288-d).

Layers and names are those of the official checkpoints (github.com/germain-hug/NRE), which fill them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nre_ros.errors import ModelError
from nre_ros.features.checkpoints import Checkpoint
from nre_ros.features.inception_blocks import ConvBlock, InceptionA, InceptionB, InceptionC, InceptionD
from nre_ros.features.maps import DenseFeatures
from nre_ros.features.raw import context_of, imagenet_batch, raw_map
from nre_ros.geometry import CellGrid

NAME = "inception"
LEVELS = ("coarse", "fine")


def _trunk(level: str, no_maxpool: bool) -> Iterator[tuple[str, int, int, list[nn.Module]]]:
    """Layers by name: channels out, stride so far, and the modules, to which a max pooling behind the layer belongs."""
    coarse = level == "coarse"
    yield "Conv2d_1a_3x3", 32, 2, [ConvBlock(3, 32, 3, stride=2, padding=1)]
    yield "Conv2d_2a_3x3", 32, 2, [ConvBlock(32, 32, 3, padding=1)]
    first = [nn.MaxPool2d(3, 2, 1)] if coarse else []
    stride = 2 << len(first)
    yield "Conv2d_2b_3x3", 64, stride, [ConvBlock(32, 64, 3, padding=1), *first]
    # 3 x 3 in the fine network, whatever its name says
    yield "Conv2d_3b_1x1", 80, stride, [ConvBlock(64, 80) if coarse else ConvBlock(64, 80, 3, padding=1)]
    second = [nn.MaxPool2d(3, 2, 1)] if coarse and not no_maxpool else []
    stride <<= len(second)
    yield "Conv2d_4a_3x3", 192, stride, [ConvBlock(80, 192, 3, padding=1), *second]
    yield "Mixed_5b", 256, stride, [InceptionA(192, 32)]
    yield "Mixed_5c", 288, stride, [InceptionA(256, 64)]
    yield "Mixed_5d", 288, stride, [InceptionA(288, 64)]
    if coarse:
        yield "Mixed_6a", 768, 2 * stride, [InceptionB(288)]
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            yield name, 768, 2 * stride, [InceptionC(width)]
        yield "Mixed_7a", 1280, 2 * stride, [InceptionD()]


class InceptionNet(nn.Module):
    """Images (B, 3, H, W), normalised by ImageNet's statistics, to raw descriptors (B, ``channels``, h, w).

    The trunk up to ``extraction_layer``, then a linear head with batch norm. Every step of the resolution is a 3 x 3
    window with padding 1 and stride 2: cell x is centred on pixel ``stride * x``, and h is ceil(H / stride). Raises
    ModelError for a level or a layer that there is not.
    """

    def __init__(self, level: str, extraction_layer: str, no_maxpool: bool = False):
        super().__init__()
        if level not in LEVELS:
            raise ModelError(f"level {level!r} is unknown, expected {' or '.join(LEVELS)}")
        layers: list[nn.Module] = []
        for name, channels, stride, modules in _trunk(level, no_maxpool):
            layers += modules
            if name == extraction_layer:
                self.stride, self.channels = stride, channels
                break
        else:
            raise ModelError(f"extraction_layer {extraction_layer!r} is unknown, expected Conv2d_1a_3x3 to {name}")
        self.cnn = nn.Sequential(*layers, nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, image: Tensor) -> Tensor:
        descriptors: Tensor = self.cnn(image)
        return descriptors

    def fold_batch_norms(self) -> InceptionNet:
        """For inference only, in place: same output in eval mode, less work."""
        for block in self.modules():
            if isinstance(block, ConvBlock):
                assert isinstance(block.conv, nn.Conv2d) and isinstance(block.bn, nn.BatchNorm2d)
                block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()
        *layers, head, norm = self.cnn
        assert isinstance(head, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        self.cnn = nn.Sequential(*layers, fuse_conv_bn_eval(head, norm))
        return self


class InceptionFeatures:
    """The paper's pair behind the common interface. Both see the same image, whole: what limits its size is the
    caller's ``max_image_side`` (the paper: about 1600 pixels), not the checkpoint's ``image.resize``; its
    ``minibatch_size`` concerns the training program's memory alone."""

    def __init__(self, coarse: InceptionNet, fine: InceptionNet, weights_hash: str, device: torch.device):
        self.name = NAME
        self.weights_hash = weights_hash
        self.device = device
        self._coarse, self._fine = (
            net.eval().fold_batch_norms().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for net in (coarse, fine)
        )

    @torch.inference_mode()
    def extract(self, image_rgb: np.ndarray) -> DenseFeatures:
        """As the interface says; raises ModelError when the weights give numbers that no map can hold."""
        image = imagenet_batch(image_rgb, self.device)
        coarse, fine = (raw_map(net(image)[0], CellGrid(net.stride, 0.0), NAME) for net in (self._coarse, self._fine))
        return DenseFeatures(coarse, fine, context_of(coarse))


def load_inception(checkpoints: Sequence[Checkpoint], device: torch.device) -> InceptionFeatures:
    """From a coarse and a fine checkpoint, in any order: each says in its hyper-parameters which it is.

    Raises ModelError for hyper-parameters that make no network, for tensors that are not those of the network that
    they describe, and unless there is one checkpoint of each level.
    """
    nets: dict[str, tuple[InceptionNet, Checkpoint]] = {}
    for checkpoint in checkpoints:
        level, net = _net_of(checkpoint)
        if level in nets:
            raise ModelError(f"weights {nets[level][1].source} and {checkpoint.source} are both of the {level} network")
        nets[level] = net, checkpoint
    missing = [level for level in LEVELS if level not in nets]
    if missing:
        raise ModelError(
            f"network {NAME!r} lacks weights of its {' and its '.join(missing)} network; none come with this package, "
            "give both files of github.com/germain-hug/NRE (--weights coarse.pth fine.pth, parameter weights)"
        )
    (coarse, first), (fine, second) = (nets[level] for level in LEVELS)
    digest = hashlib.sha256(f"{first.digest} {second.digest}".encode()).hexdigest()
    return InceptionFeatures(coarse, fine, digest[:16], device)


def _net_of(checkpoint: Checkpoint) -> tuple[str, InceptionNet]:
    given = checkpoint.settings.get("hyper_parameters")
    if not isinstance(given, dict) or not {"level", "extraction_layer"} <= given.keys():
        raise ModelError(
            f"weights {checkpoint.source} do not say which network they are of: expected hyper_parameters with level "
            "and extraction_layer, as in a Lightning checkpoint, or as JSON in the metadata of safetensors"
        )
    level, layer = str(given["level"]), str(given["extraction_layer"])
    try:
        net = InceptionNet(level, layer, bool(given.get("no_maxpool", False)))
    except ModelError as error:
        raise ModelError(f"weights {checkpoint.source} are of no known network: {error}") from error
    checkpoint.fill(net, f"{NAME} {level} {layer}")
    return level, net
