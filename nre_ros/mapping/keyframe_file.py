"""One keyframe in one file: arrays in safetensors, everything else in its header, whatever fields a keyframe has."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.mapping.builder import Keyframe

PART = ".part"
"""End of the name of a file that is being written."""


def schema() -> str:
    """Names the version of the format: changes with the names and types of what a keyframe holds."""
    return hashlib.sha256("\n".join(_schema(Keyframe, "")).encode()).hexdigest()[:8]


def byte_size(keyframe: Keyframe) -> int:
    """Memory of its arrays."""
    arrays: dict[str, Tensor] = {}
    _pack(keyframe, "keyframe", arrays)
    return sum(array.nbytes for array in arrays.values())


def write_keyframe(keyframe: Keyframe, file: Path) -> None:
    """To the disk itself, under another name first: ``file`` is whole or not there. Raises OSError."""
    arrays: dict[str, Tensor] = {}
    packed = _pack(keyframe, "keyframe", arrays)
    write_whole(file, save(arrays, metadata={"keyframe": json.dumps(packed)}))


def write_whole(file: Path, content: bytes) -> None:
    """As :func:`write_keyframe`, for any content."""
    part = file.with_name(file.name + PART)
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def read_keyframe(file: Path) -> Keyframe:
    """Memory-mapped: its pages are read when they are used, and given up when memory is short. Raises MapError."""
    try:
        with safe_open(file, framework="pt") as stored:
            packed = json.loads((stored.metadata() or {})["keyframe"])
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        keyframe: Keyframe = _unpack(Keyframe, packed, "keyframe", arrays)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise MapError(f"keyframe {file} is damaged: {error}") from error
    return keyframe


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _schema(kind: Any, path: str) -> list[str]:
    if not dataclasses.is_dataclass(kind):
        return [f"{path}: {getattr(kind, '__name__', kind)}"]
    hints = typing.get_type_hints(kind)
    children = [_schema(hints[f.name], f"{path}.{f.name}" if path else f.name) for f in dataclasses.fields(kind)]
    return [line for lines in children for line in lines]


def _pack(value: Any, path: str, arrays: dict[str, Tensor]) -> Any:
    """What goes into the header; tensors and arrays go to ``arrays`` under their path."""
    if isinstance(value, Tensor):
        arrays[path] = value.contiguous()
        return None
    if isinstance(value, np.ndarray):
        arrays[path] = torch.from_numpy(np.ascontiguousarray(value))
        return None
    if dataclasses.is_dataclass(value):
        return {
            item.name: _pack(getattr(value, item.name), f"{path}.{item.name}", arrays)
            for item in dataclasses.fields(value)
        }
    return value.value if isinstance(value, Enum) else value


def _unpack(kind: Any, packed: Any, path: str, arrays: dict[str, Tensor]) -> Any:
    if isinstance(kind, types.UnionType):  # X | None
        if packed is None and path not in arrays:
            return None
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    if kind is Tensor:
        return arrays[path]
    if kind is np.ndarray:
        return arrays[path].numpy()
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        values = {
            item.name: _unpack(hints[item.name], packed[item.name], f"{path}.{item.name}", arrays)
            for item in dataclasses.fields(kind)
        }
        return kind(**values)  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(packed)
    return tuple(packed) if typing.get_origin(kind) is tuple else packed
