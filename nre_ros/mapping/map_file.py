"""Maps on disk: a folder that holds one safetensors file, replaced whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nre_ros.errors import CalibrationError, MapError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Camera, DistortionModel
from nre_ros.mapping.map import Map, MapArrays, array_digest, check_content
from nre_ros.mapping.mapped_file import MappedFile

FORMAT_VERSION = 2
FILE_NAME = "map.safetensors"
HASHED_AT_LOAD = 8 * 2**20
"""Bytes of the largest array whose content is compared with its digest as the map is loaded: all of a map of some
ten thousand landmarks. Of larger ones only ``check_map`` reads everything, for a map of 1 GB must load at once."""


def save_map(map_: Map, path: str | Path) -> None:
    """Write the map into folder ``path``, atomically: a reader finds the old map or the new one, never a part.

    Raises MapError when the folder cannot be written, or when the map holds references that lead nowhere or numbers
    that are not finite; what was there stays.
    """
    check_content(map_.arrays, len(map_.cameras))
    folder = Path(path)
    arrays = {item.name: getattr(map_.arrays, item.name).contiguous() for item in fields(MapArrays)}
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".map-", suffix=".part", dir=folder)
        os.close(handle)
        save_file(arrays, temporary, metadata={"nre_ros": json.dumps(_metadata(map_))})
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / FILE_NAME)
    except (OSError, SafetensorError) as error:
        raise MapError(f"map cannot be written to {folder}: {error}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def load_map(path: str | Path, network: FeatureNetwork | None = None) -> Map:
    """Load the map in folder ``path``; arrays are memory-mapped. With ``network``, refuse a map that another one made.

    Raises MapError when the map is missing, truncated, damaged, of another format version or another network, and when
    its metadata or an array of up to :data:`HASHED_AT_LOAD` bytes was altered; see :func:`check_map` for the others.
    """
    file = Path(path) / FILE_NAME
    if not file.is_file():
        raise MapError(f"there is no map at {path} (no {FILE_NAME} in it); build one with nre_ros build-map")
    try:
        mapped = MappedFile(file)
        with safe_open(file, framework="pt") as stored:
            text = (stored.metadata() or {}).get("nre_ros")
            if text is None:
                raise MapError(f"{file} is a safetensors file but no map of nre_ros")
            metadata = json.loads(text)
            _check_version(metadata, file)
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        map_ = _map_from(metadata, arrays, mapped)
        digest = metadata["digest"]
    except (SafetensorError, CalibrationError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MapError(f"map {file} is truncated or damaged ({error}); build it again or copy it anew") from error
    if map_.digest != digest:
        raise MapError(f"map {file} was altered: its metadata do not match its digest; {_REPAIR}")
    _check_digests(map_, file, HASHED_AT_LOAD)
    if network is not None:
        check_network(map_, network, file)
    return map_


def check_map(path: str | Path) -> Map:
    """Load the map in folder ``path`` and read all of it.

    Raises MapError as :func:`load_map` does, and when any array was altered, refers to what is not there or holds
    numbers that are not finite.
    """
    map_ = load_map(path)
    _check_digests(map_, Path(path) / FILE_NAME)
    check_content(map_.arrays, len(map_.cameras))
    return map_


def check_network(map_: Map, network: FeatureNetwork, where: object = "in memory") -> None:
    """Raise MapError unless ``network`` made the descriptors of the map."""
    made, given = (map_.network_name, map_.network_hash), (network.name, network.weights_hash)
    if made != given:
        raise MapError(
            f"map {where} was made by network {made[0]} ({made[1]}), but {given[0]} ({given[1]}) is loaded; "
            "build the map again or load its weights"
        )


_REPAIR = "build it again or copy it anew"


def _check_digests(map_: Map, file: Path, largest: int | None = None) -> None:
    """Of arrays of up to ``largest`` bytes; of all without it."""
    for item in fields(MapArrays):
        array = getattr(map_.arrays, item.name)
        looked_at = largest is None or array.numel() * array.element_size() <= largest
        if looked_at and array_digest(array) != map_.array_digests[item.name]:
            raise MapError(f"map {file} was altered: array {item.name} does not match its digest; {_REPAIR}")


def _metadata(map_: Map) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "frame_id": map_.frame_id,
        "unit": map_.unit,
        "network_name": map_.network_name,
        "network_hash": map_.network_hash,
        "cameras": [{**vars(camera), "model": camera.model.value} for camera in map_.cameras],
        "median_depth": map_.median_depth,
        "array_digests": dict(map_.array_digests),
        "digest": map_.digest,
    }


def _check_version(metadata: dict[str, object], file: Path) -> None:
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise MapError(
            f"map {file} has format version {version}, this nre_ros reads {FORMAT_VERSION}; build the map again"
        )


def _map_from(metadata: dict[str, Any], arrays: dict[str, torch.Tensor], file: MappedFile) -> Map:
    cameras = []
    for item in metadata["cameras"]:
        values = {**item, "model": DistortionModel(item["model"]), "distortion": tuple(item["distortion"])}
        cameras.append(Camera(**values))
    map_ = Map(
        frame_id=str(metadata["frame_id"]),
        unit=str(metadata["unit"]),
        network_name=str(metadata["network_name"]),
        network_hash=str(metadata["network_hash"]),
        cameras=tuple(cameras),
        arrays=MapArrays(**{item.name: arrays[item.name] for item in fields(MapArrays)}),
        file=file,
    )
    digests = metadata["array_digests"]
    # what takes reading all of the file to compute was computed when it was written
    vars(map_).update(
        median_depth=float(metadata["median_depth"]),
        array_digests={item.name: str(digests[item.name]) for item in fields(MapArrays)},
    )
    return map_
