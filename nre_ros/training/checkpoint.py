"""What a training leaves on disk: checkpoints to go on from, weights to use, curves to look at."""

from __future__ import annotations

import csv
import io
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from nre_ros.config import with_values
from nre_ros.errors import ModelError
from nre_ros.training.config import TrainingConfig

CHECKPOINT, WEIGHTS = "checkpoint.pt", "compact.safetensors"
FORMAT_VERSION = 1
NETWORK = "compact"


def save_checkpoint(folder: Path, state: Mapping[str, object]) -> None:
    """Replace the folder's checkpoint, whole or not at all. Raises ModelError when it cannot be written."""
    content = {"format_version": FORMAT_VERSION, "network": NETWORK, **state}
    packed = io.BytesIO()
    torch.save(content, packed)  # into memory first: to torch's own writer a full disk is an "unexpected pos"
    _replace(folder / CHECKPOINT, lambda path: path.write_bytes(packed.getbuffer()))


def load_checkpoint(folder: Path) -> dict[str, object]:
    """The folder's checkpoint; no code in it is run. Raises ModelError for none, or one of something else."""
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ModelError(f"there is no training to resume in {folder} (no {CHECKPOINT}); start one without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"checkpoint {path} is damaged or no checkpoint of nre_ros ({first})") from error
    found = (
        (content.get("network"), content.get("format_version")) if isinstance(content, dict) else ("nothing known", 0)
    )
    if found != (NETWORK, FORMAT_VERSION):
        raise ModelError(
            f"checkpoint {path} belongs to network {found[0]!r}, format {found[1]}; expected {NETWORK!r}, format "
            f"{FORMAT_VERSION}"
        )
    return content


def resumed_config(folder: Path) -> TrainingConfig:
    """The parameters of the folder's training; raises ModelError and ConfigError."""
    values: Any = load_checkpoint(folder).get("config", {})
    return with_values(TrainingConfig(), values)


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, which ``load_network(path=...)`` reads. Raises ModelError as above."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    _replace(path, lambda temporary: temporary.write_bytes(save(tensors)))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be written: {error}; what was there is still whole. Mend this, then go on with --resume"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _is_whole(row: Mapping[str | None, str | list[str] | None]) -> bool:
    """Not the half line that a full disk or a power cut leaves behind."""
    step = row.get("step")
    return isinstance(step, str) and step.isdecimal() and None not in row and None not in row.values()


class Curve:
    """A CSV file whose first column is the step; rows after ``step``, where a training goes on, are forgotten."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        rows = csv.DictReader(path.read_text(errors="replace").splitlines()) if path.exists() else []
        self._write([row for row in rows if _is_whole(row) and int(row["step"]) <= step], "w")

    def add(self, row: Mapping[str, object]) -> None:
        self._write([row], "a")

    def _write(self, rows: list[Mapping[str, object]] | list[dict[str, str]], mode: str) -> None:
        try:
            with self._path.open(mode, newline="") as file:
                for row in rows:
                    writer = csv.DictWriter(file, list(row))
                    if file.tell() == 0:
                        writer.writeheader()
                    writer.writerow(row)
        except OSError as error:
            raise ModelError(f"{self._path} cannot be written: {error}; mend this, then go on with --resume") from error
