"""From folders to the pairs that a training and its validation use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nre_ros.errors import ConfigError, RecordingError
from nre_ros.training.config import TrainingConfig
from nre_ros.training.pairs import Pair, PairSource
from nre_ros.training.photos import PhotoPairs, find_photos
from nre_ros.training.pose_queries import PoseQuery, fixed_queries
from nre_ros.training.posed import PosedPairs, colmap_scene
from nre_ros.training.rendered import RenderedPairs
from nre_ros.training.validation import fixed_pairs


@dataclass(frozen=True)
class TrainingData:
    """``sources`` by kind, as the mixture weighs them; ``validation`` sets by name, of pairs and of ``poses``."""

    sources: dict[str, PairSource]
    validation: dict[str, list[Pair]]
    poses: dict[str, list[PoseQuery]]


def gather(
    config: TrainingConfig,
    images: Sequence[str] = (),
    colmap: Sequence[str] = (),
    held_out: Sequence[str] = (),
    rendered: bool = False,
) -> TrainingData:
    """Photos in ``images``, COLMAP scenes in ``colmap``, rendered rooms; scenes ``held_out`` serve validation alone.

    A share of the photos is held out by their names. Raises RecordingError for folders that hold nothing to train on,
    ConfigError when none is given.
    """
    sources: dict[str, PairSource] = {}
    validation: dict[str, list[Pair]] = {}
    poses: dict[str, list[PoseQuery]] = {}
    count = config.validation_pairs
    if images:
        kept, apart = split_photos(find_photos(images), config.held_out_share)
        sources["photos"] = PhotoPairs(kept, config.pairs)
        if apart:
            validation["photos"] = fixed_pairs(PhotoPairs(apart, config.pairs), count, config, strong=True)
    if colmap:
        sources["posed"] = PosedPairs([colmap_scene(folder, config.pairs) for folder in colmap], config.pairs)
    if rendered:
        sources["rendered"] = RenderedPairs(config.mixture.worlds, config.pairs)
    if not sources:
        raise ConfigError("nothing to train on; give --images, --colmap or --rendered, or a place with --from-map")
    if held_out:
        source = PosedPairs([colmap_scene(folder, config.pairs) for folder in held_out], config.pairs)
        validation["posed"] = fixed_pairs(source, count, config, strong=False)
        validation["posed_strong"] = fixed_pairs(source, count, config, strong=True)
        if not validation["posed"]:
            such = f", such as {min(source.corrupt)}" if source.corrupt else ""
            raise RecordingError(
                f"no pair could be made of {', '.join(map(str, held_out))} to validate on: "
                f"{len(source.corrupt)} images are unreadable{such}"
            )
        poses["posed"] = fixed_queries(source, config, strong=False)
        poses["posed_strong"] = fixed_queries(source, config, strong=True)
    return TrainingData(sources, validation, poses)


def split_photos(files: Sequence[Path], held_out_share: float) -> tuple[list[Path], list[Path]]:
    """Photos to train on and photos held out; a photo stays on its side whatever else lies beside it."""
    held = [int(hashlib.sha256(f"{f.parent.name}/{f.name}".encode()).hexdigest(), 16) % 1000 for f in files]
    apart = [h < 1000 * held_out_share for h in held]
    kept = [f for f, a in zip(files, apart, strict=True) if not a]
    return (kept, [f for f, a in zip(files, apart, strict=True) if a]) if kept else (list(files), [])
