"""Weight files of every kind, read without running what they hold.

Safetensors hold tensors and text alone. Torch's own files are pickles: torch reads them with its restricted unpickler,
and the few classes that PyTorch Lightning and OmegaConf leave in them are replaced by inert ones.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from nre_ros.errors import ModelError

SETTINGS = ("hyper_parameters", "hypercolumn_layers")
"""What is kept of a checkpoint besides its tensors."""

SAFE_TORCH = "2.6"
"""Older ones let a prepared file run code in spite of ``weights_only`` (CVE-2025-32434)."""


@dataclass(frozen=True)
class Checkpoint:
    """``state``: tensors by key. ``settings``: what the file says under :data:`SETTINGS`, as dicts, lists, numbers and
    strings. ``digest``: SHA-256 of the file, hexadecimal. ``source``: where it came from, for messages."""

    state: dict[str, Tensor]
    settings: Mapping[str, Any]
    digest: str
    source: str

    def fill(self, net: nn.Module, name: str) -> None:
        """Put the tensors into ``net``, known to the user as ``name``; raises ModelError unless they fit one to one."""
        wanted = net.state_dict()
        faults = [f"{key} is missing" for key in wanted.keys() - self.state.keys()]
        faults += [f"{key} is not of it" for key in self.state.keys() - wanted.keys()]
        for key in wanted.keys() & self.state.keys():
            if self.state[key].shape != wanted[key].shape:
                got, expected = tuple(self.state[key].shape), tuple(wanted[key].shape)
                faults.append(f"{key} has shape {got}, expected {expected}")
            elif not bool(torch.isfinite(self.state[key]).all()):
                faults.append(f"{key} holds NaN or infinity")
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise ModelError(f"weights {self.source} do not belong to network {name!r}: {min(faults)}{more}")
        net.load_state_dict(self.state)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a safetensors file or a torch file: a bare state, or a checkpoint with ``state_dict`` or ``model``.

    Settings of safetensors lie in the file's metadata, as JSON. Raises ModelError when the file cannot be read, is
    damaged, or holds a class that is not expected in a checkpoint; no code of the file is run.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"weights {path} cannot be read: {error.strerror}") from error
    try:
        content = _from_safetensors(data) if data[8:9] == b"{" else _from_torch(data, path)
        state = content.get("state_dict", content.get("model", content))
        settings = {key: _plain(content[key]) for key in SETTINGS if key in content}
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise ModelError(f"weights {path} hold no network: expected tensors by name, or these under state_dict")
    except ModelError:
        raise
    except Exception as error:  # what a damaged file raises is anything; what torch advises then is to run its code
        raise ModelError(
            f"weights {path} are damaged, or no file of safetensors or torch; install or copy them again"
        ) from error
    return Checkpoint(dict(state), settings, hashlib.sha256(data).hexdigest(), str(path))


def _from_safetensors(data: bytes) -> dict[str, Any]:
    state = load_safetensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    texts = {key: text for key, text in header.get("__metadata__", {}).items() if key in SETTINGS}
    return {"state_dict": state} | {key: json.loads(text) for key, text in texts.items()}


class _Inert:
    """Stands for a class of a checkpoint: takes what the pickle gives it and does nothing."""

    def __init__(self, *_: object) -> None: ...


_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
_STAND_INS: list[Any] = [
    argparse.Namespace,
    *(dict, list, tuple, str, int, float, bool),
    # dicts with attributes, made of hyper-parameters by Lightning
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
    # Lightning before 1.5 files the state of its callbacks under their classes
    *((_Inert, f"{top}.callbacks.model_checkpoint.ModelCheckpoint") for top in _LIGHTNING),
    *((_Inert, f"{top}.callbacks.early_stopping.EarlyStopping") for top in _LIGHTNING),
    *((_Inert, f"{top}.callbacks.lr_monitor.LearningRateMonitor") for top in _LIGHTNING),
    *((_Inert, f"omegaconf.{name}") for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *((_Inert, f"omegaconf.base.{name}") for name in ("ContainerMetadata", "Metadata")),
    *((_Inert, f"omegaconf.nodes.{kind}Node") for kind in ("Any", "String", "Integer", "Float", "Boolean")),
    (_Inert, "typing.Any"),
    (_Inert, "collections.defaultdict"),
    (_Inert, "pathlib.PosixPath"),
    (_Inert, "pathlib.WindowsPath"),
]
"""Harmless by themselves, or replaced by what is harmless: (what is made, the name in the file)."""


def _from_torch(data: bytes, path: Path) -> dict[str, Any]:
    if torch.__version__ < SAFE_TORCH:
        raise ModelError(
            f"weights {path} are no safetensors, and torch {torch.__version__} cannot read other files safely; "
            f"install torch {SAFE_TORCH} or later, or convert them to safetensors"
        )
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise
        raise ModelError(
            f"weights {path} hold an object of {named[1]}, which is not allowed in a checkpoint and was not loaded; "
            "if you trust the file, save its state_dict and hyper_parameters alone, or as safetensors"
        ) from error
    if not isinstance(content, Mapping):
        raise ModelError(f"weights {path} hold a {type(content).__name__}, expected a state_dict or a checkpoint")
    return dict(content)


def _plain(value: Any) -> Any:
    """Dicts, lists and scalars out of what hyper-parameters may be kept in."""
    if isinstance(value, argparse.Namespace | _Inert):
        inside = vars(value)
        return _plain(inside.get("_content", inside.get("_val", inside)))  # OmegaConf's containers and leaves
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
