"""Find, check and load network weights."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from nre_ros.errors import ModelError
from nre_ros.features.compact import CompactNet
from nre_ros.features.network import CompactFeatures, FeatureNetwork


def resolve_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one; raises ModelError for CUDA that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was asked for but torch {torch.__version__} sees no CUDA; use device:=cpu")
    return torch.device(device)


def load_network(name: str = "compact", *, device: str = "auto", path: str | Path | None = None) -> FeatureNetwork:
    """The named network with the weights of this package, or those at ``path`` (safetensors).

    Raises ModelError when the name is unknown, or the file is missing, damaged or of another network.
    """
    if name != "compact":
        raise ModelError(f"network {name!r} is unknown; known: compact")
    data, source = _read(path)
    try:
        state = load(data)
    except SafetensorError as error:
        raise ModelError(f"weights {source} are damaged ({error}); install or copy them again") from error
    net = CompactNet()
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"weights {source} do not belong to network {name!r}") from error
    return CompactFeatures(net, hashlib.sha256(data).hexdigest()[:16], resolve_device(device))


def _read(path: str | Path | None) -> tuple[bytes, str]:
    source = resources.files("nre_ros.features") / "weights" / "compact.safetensors" if path is None else Path(path)
    try:
        return source.read_bytes(), str(source)
    except OSError as error:
        raise ModelError(f"weights {source} cannot be read: {error.strerror}") from error
