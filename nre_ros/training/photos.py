"""Pairs of one photo: two views of it, as of a flat or gently bent thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from nre_ros.errors import RecordingError
from nre_ros.recordings.compressed import decode_compressed
from nre_ros.training.config import PairConfig
from nre_ros.training.pairs import Pair, inside
from nre_ros.training.warps import View, Waves, similarity, tilt

SUFFIXES = {".jpg", ".jpeg", ".png"}
SMALLEST_PX = 96
"""Photos with a shorter side than this are left out like corrupt ones."""


class PhotoPairs:
    """Pairs of the photos in ``files``: paths, or the bytes of JPEG or PNG files."""

    def __init__(self, files: Sequence[Path | bytes], config: PairConfig) -> None:
        self.corrupt: set[str] = set()
        self._files = files
        self._config = config

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Pair | None:
        number = int(rng.integers(len(self._files)))
        photo = read_photo(self._files[number], self.corrupt, f"image {number}")
        return None if photo is None else self._pair(photo, rng, width, height)

    def _pair(self, photo: np.ndarray, rng: np.random.Generator, width: int, height: int) -> Pair | None:
        size = photo.shape[1], photo.shape[0]
        matrix_a, matrix_b = two_views(rng, size, width, height)
        waves = Waves.draw(rng, max(width, height)) if rng.random() < self._config.warp_share else None
        # only one of the two views may have waves: the way back through them has no closed form
        view_a, view_b = View(matrix_a, width, height), View(matrix_b, width, height, waves)
        image_b = view_b.render(photo)
        uv_b = candidates(image_b, rng, 4 * self._config.points)
        on_photo = view_b.to_photo(uv_b)
        uv_a = view_a.from_photo(on_photo)
        kept = np.flatnonzero(inside(on_photo, *size) & inside(uv_a, width, height) & inside(uv_b, width, height))
        if len(kept) < self._config.min_points:
            return None
        kept = kept[: self._config.points]
        return Pair(view_a.render(photo), image_b, uv_a[kept].astype(np.float32), uv_b[kept].astype(np.float32))


def two_views(rng: np.random.Generator, size: tuple[int, int], width: int, height: int) -> list[np.ndarray]:
    """photo_from_crop (3, 3) of two views of a photo of ``size`` (width, height): near each other, apart in scale,
    turned, tilted."""
    fits = min(size[0] / width, size[1] / height)
    scale = fits * np.exp(rng.uniform(np.log(0.5), np.log(1.0)))
    ratio = np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    scales = np.clip([scale, scale * ratio], 0.3, 1.25 * max(fits, 0.5))
    spread = np.maximum(np.array(size) - scales[0] * np.array([width, height]), 0) / 2
    centre = np.array(size) / 2 - 0.5 + rng.uniform(-1, 1, 2) * spread
    apart = rng.normal(0, 0.12, 2) * scales[0] * np.array([width, height])
    views = []
    for place, own in zip((centre, centre + apart), scales, strict=True):
        angle = np.deg2rad(rng.uniform(-50, 50) if rng.random() < 0.15 else rng.normal(0, 12)) / np.sqrt(2)
        views.append(similarity(place, own, angle, width, height) @ tilt(rng, 0.16 / np.sqrt(2), width, height))
    return views


def candidates(image: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Pixels (count, 2) float64 in random order: up to half of them corners, the others anywhere."""
    height, width = image.shape[:2]
    corners = cv2.goodFeaturesToTrack(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), count // 2, 0.01, 4)
    found = np.zeros((0, 2)) if corners is None else corners.reshape(-1, 2).astype(np.float64)
    found = found + rng.uniform(-0.5, 0.5, found.shape)  # no cell of the maps may be preferred
    anywhere = rng.uniform(0, 1, (count - len(found), 2)) * [width - 1, height - 1]
    return rng.permutation(np.concatenate([found, anywhere]))


def read_photo(source: Path | bytes, corrupt: set[str], name: str = "") -> np.ndarray | None:
    """The image, uint8 RGB (H, W, 3); None for what cannot be read or is too small, whose name goes to ``corrupt``."""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        photo = decode_compressed("photo", data)
    except (OSError, RecordingError):
        photo = np.zeros((0, 0, 3), np.uint8)
    if min(photo.shape[:2]) >= SMALLEST_PX:
        return photo
    corrupt.add(name if isinstance(source, bytes) else str(source))
    return None


def find_photos(folders: Sequence[str | Path]) -> list[Path]:
    """All JPEG and PNG files in folders and below, sorted. Raises RecordingError for a folder that holds none."""
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RecordingError(f"image folder {folder} does not exist or is no folder; check the path")
        here = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not here:
            raise RecordingError(f"image folder {folder} holds no JPEG or PNG file; expected photos to train on")
        found += here
    return found
