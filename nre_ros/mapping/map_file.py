"""Maps on disk: a folder that holds one safetensors file, replaced whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nre_ros.errors import CalibrationError, MapError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Camera, DistortionModel
from nre_ros.mapping.map import Map, MapArrays

FORMAT_VERSION = 1
FILE_NAME = "map.safetensors"


def save_map(map_: Map, path: str | Path) -> None:
    """Write the map into folder ``path``, atomically: a reader finds the old map or the new one, never a part.

    Raises MapError when the folder cannot be written; what was there stays.
    """
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

    Raises MapError when the map is missing, truncated, altered, of another format version or another network.
    """
    file = Path(path) / FILE_NAME
    if not file.is_file():
        raise MapError(f"there is no map at {path} (no {FILE_NAME} in it); build one with nre_ros build-map")
    try:
        with safe_open(file, framework="pt") as stored:
            text = (stored.metadata() or {}).get("nre_ros")
            if text is None:
                raise MapError(f"{file} is a safetensors file but no map of nre_ros")
            metadata = json.loads(text)
            _check_version(metadata, file)
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        map_ = _map_from(metadata, arrays)
        digest = metadata["digest"]
    except (SafetensorError, CalibrationError, OSError, ValueError, KeyError, TypeError) as error:
        raise MapError(f"map {file} is truncated or damaged ({error}); build it again or copy it anew") from error
    if map_.digest != digest:
        raise MapError(f"map {file} was altered: its content does not match its digest; build it again or copy it anew")
    if network is not None:
        check_network(map_, network, file)
    return map_


def check_network(map_: Map, network: FeatureNetwork, where: object = "in memory") -> None:
    """Raise MapError unless ``network`` made the descriptors of the map."""
    made, given = (map_.network_name, map_.network_hash), (network.name, network.weights_hash)
    if made != given:
        raise MapError(
            f"map {where} was made by network {made[0]} ({made[1]}), but {given[0]} ({given[1]}) is loaded; "
            "build the map again or load its weights"
        )


def _metadata(map_: Map) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "frame_id": map_.frame_id,
        "unit": map_.unit,
        "network_name": map_.network_name,
        "network_hash": map_.network_hash,
        "cameras": [{**vars(camera), "model": camera.model.value} for camera in map_.cameras],
        "digest": map_.digest,
    }


def _check_version(metadata: dict[str, object], file: Path) -> None:
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise MapError(
            f"map {file} has format version {version}, this nre_ros reads {FORMAT_VERSION}; build the map again"
        )


def _map_from(metadata: dict[str, object], arrays: dict[str, torch.Tensor]) -> Map:
    cameras = []
    for item in metadata["cameras"]:  # type: ignore[attr-defined]
        values = {**item, "model": DistortionModel(item["model"]), "distortion": tuple(item["distortion"])}
        cameras.append(Camera(**values))
    return Map(
        frame_id=str(metadata["frame_id"]),
        unit=str(metadata["unit"]),
        network_name=str(metadata["network_name"]),
        network_hash=str(metadata["network_hash"]),
        cameras=tuple(cameras),
        arrays=MapArrays(**{item.name: arrays[item.name] for item in fields(MapArrays)}),
    )
