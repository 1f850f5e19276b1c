"""Networks by name, with the weights of this package or a user's files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch

from nre_ros.config import NETWORKS, BuilderConfig, LocalizerConfig
from nre_ros.errors import ModelError
from nre_ros.features.checkpoints import Checkpoint, read_checkpoint
from nre_ros.features.compact import CompactNet
from nre_ros.features.inception import load_inception
from nre_ros.features.network import CompactFeatures, FeatureNetwork
from nre_ros.features.s2dnet import load_s2dnet


def resolve_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one; raises ModelError for CUDA that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was asked for but torch {torch.__version__} sees no CUDA; use device:=cpu")
    return torch.device(device)


def load_network(
    name: str = "compact", *, device: str = "auto", path: str | Path | Sequence[str | Path] = ()
) -> FeatureNetwork:
    """The named network with the weights of this package, or those at ``path``, one file or several.

    ``compact`` comes with weights. ``inception`` takes the paper's two checkpoints in any order, ``s2dnet`` one: files
    of PyTorch Lightning or safetensors, read without running code. Raises ModelError when the name is unknown, or a
    file is missing, damaged or of another network.
    """
    if name not in NETWORKS:
        raise ModelError(f"network {name!r} is unknown; known: {', '.join(NETWORKS)}")
    paths = [path] if isinstance(path, str | Path) else path
    checkpoints = [read_checkpoint(Path(one)) for one in paths]
    where = resolve_device(device)
    if name == "inception":
        return load_inception(checkpoints, where)
    if name == "s2dnet":
        return load_s2dnet(checkpoints, where)
    return _load_compact(checkpoints, where)


def configured_network(config: LocalizerConfig | BuilderConfig) -> FeatureNetwork:
    """The network that parameters ``network``, ``weights`` and ``device`` name; raises ModelError."""
    paths = [path for path in config.weights.split(":") if path]
    return load_network(config.network, device=config.device, path=paths)


def _load_compact(checkpoints: Sequence[Checkpoint], device: torch.device) -> CompactFeatures:
    if len(checkpoints) > 1:
        raise ModelError(f"network 'compact' needs one file of weights, got {len(checkpoints)}")
    checkpoint = checkpoints[0] if checkpoints else _packaged("compact.safetensors")
    net = CompactNet()
    checkpoint.fill(net, "compact")
    return CompactFeatures(net, checkpoint.digest[:16], device)


def _packaged(file_name: str) -> Checkpoint:
    with resources.as_file(resources.files("nre_ros.features") / "weights" / file_name) as path:
        return read_checkpoint(path)
