"""Networks of the literature with random weights, and checkpoints like theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ros_world
import torch
from torch import Tensor, nn

from nre_ros.features.inception import InceptionNet
from nre_ros.features.raw import imagenet_batch

CPU = torch.device("cpu")
SMALL_COARSE = {"level": "coarse", "extraction_layer": "Mixed_5b"}
SMALL_FINE = {"level": "fine", "extraction_layer": "Conv2d_4a_3x3"}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random in everything, batch norms too, and of about unit gain."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1, generator=generator)
            nn.init.normal_(module.running_mean, std=0.1, generator=generator)
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.7, 1.4, generator=generator)
    return net.eval()


def symmetric(net: nn.Module, seed: int = 0) -> nn.Module:
    """Kernels that are their own mirror images, positive, of unit sum: an impulse spreads evenly to all sides."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kernel = torch.rand(module.weight.shape, generator=generator)
            kernel = kernel + kernel.flip(-1)
            kernel = kernel + kernel.flip(-2)
            module.weight.data = kernel / kernel.sum((1, 2, 3), keepdim=True)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net.eval()


def save_lightning(
    path: Path, state: dict[str, Tensor], hyper_parameters: Any, zipped: bool = True, **more: Any
) -> Path:
    """As PyTorch Lightning writes it; before torch 1.6, files were no zip archives."""
    content = {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.2.10", "state_dict": state}
    content |= {"hyper_parameters": hyper_parameters, "optimizer_states": [{"lr": 0.1}], **more}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def small_inception(folder: Path) -> list[Path]:
    """Checkpoints, coarse and fine, of networks cut short: quick, and with batch norms set on an image of the corner,
    so that random descriptors tell one cell from another."""
    files = []
    for hyper in (SMALL_COARSE, SMALL_FINE):
        net = randomised(InceptionNet(**hyper))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            net.train()(imagenet_batch(ros_world.frame(0, 0).image_rgb, CPU))
        files.append(save_lightning(folder / f"{hyper['level']}.pth", net.state_dict(), hyper))
    return files
