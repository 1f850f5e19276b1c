"""The weights that a training starts from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch

from nre_ros.features.checkpoints import read_checkpoint
from nre_ros.features.compact import CompactNet
from nre_ros.training.config import TrainingConfig


def start_network(start_from: str, config: TrainingConfig) -> tuple[CompactNet, float]:
    """``scratch``, ``default`` (this package's weights) or a file: the network, and the factor of its learning rates.

    Raises ModelError when the file is missing, damaged or of another network.
    """
    torch.manual_seed(config.seed)
    net = CompactNet()
    if start_from == "scratch":
        return net, 1.0
    with resources.as_file(resources.files("nre_ros.features") / "weights" / "compact.safetensors") as packaged:
        read_checkpoint(packaged if start_from == "default" else Path(start_from)).fill(net, "compact")
    return net, config.optimizer.fine_tuning_share
