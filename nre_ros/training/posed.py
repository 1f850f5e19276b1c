"""Pairs of posed images: the same 3D points, with the parallax, occlusion and light of the real world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix

from nre_ros.errors import RecordingError
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings.colmap import model_folder
from nre_ros.recordings.colmap_model import ColmapImage, ColmapModel, read_model
from nre_ros.training.config import PairConfig
from nre_ros.training.pairs import Pair, inside
from nre_ros.training.photos import read_photo
from nre_ros.training.warps import View, similarity

TRUSTED_PX = 2.0
"""Points whose projection is further from where they were seen are left out."""

_TRIES = 8


@dataclass(frozen=True)
class PosedImage:
    """``source`` is a path or the bytes of an image file; ``uv_px`` (P, 2) its points ``point`` (P,), ids ascending.

    Pixels are those of the stored image, whose size is the ``camera``'s. ``xyz`` (P, 3) are the points in the scene.
    """

    source: Path | bytes
    uv_px: np.ndarray
    point: np.ndarray
    xyz: np.ndarray
    camera: Camera
    cam_from_scene: Pose


@dataclass(frozen=True)
class PosedScene:
    """Images that share points; ``pairs`` (K, 2) are the indices of those to train on."""

    name: str
    images: tuple[PosedImage, ...]
    pairs: np.ndarray


Shown = tuple[PosedImage, np.ndarray]
"""With the image itself, uint8 (H, W, 3)."""


class PosedPairs:
    """Pairs of scenes; a scene is drawn as often as the root of its images' number."""

    def __init__(self, scenes: Sequence[PosedScene], config: PairConfig) -> None:
        self.corrupt: set[str] = set()
        self._scenes = scenes
        self._config = config
        weights = np.sqrt([len(scene.images) for scene in scenes])
        self._odds = weights / weights.sum()

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Pair | None:
        drawn = self.draw_images(rng)
        if drawn is None:
            return None
        (a, photo_a), (b, photo_b) = drawn
        _, in_a, in_b = np.intersect1d(a.point, b.point, assume_unique=True, return_indices=True)
        uv_a, uv_b = a.uv_px[in_a], b.uv_px[in_b]
        for _ in range(_TRIES):
            anchor = int(rng.integers(len(uv_a)))
            view_a = _crop(photo_a, uv_a[anchor], rng, width, height)
            view_b = _crop(photo_b, uv_b[anchor], rng, width, height)
            crop_a, crop_b = view_a.from_photo(uv_a), view_b.from_photo(uv_b)
            kept = np.flatnonzero(inside(crop_a, width, height) & inside(crop_b, width, height))
            if len(kept) >= self._config.min_points:
                kept = rng.permutation(kept)[: self._config.points]
                uv = (c[kept].astype(np.float32) for c in (crop_a, crop_b))
                return Pair(view_a.render(photo_a), view_b.render(photo_b), *uv)
        return None

    def draw_images(self, rng: np.random.Generator) -> tuple[Shown, Shown] | None:
        """Two whole images that share points; None when one of them cannot be read."""
        scene = self._scenes[int(rng.choice(len(self._scenes), p=self._odds))]
        pair = rng.permutation(scene.pairs[int(rng.integers(len(scene.pairs)))])
        first, second = (self._read(scene.images[i], f"{scene.name}, image {i}") for i in pair)
        return None if first is None or second is None else (first, second)

    def _read(self, image: PosedImage, name: str) -> Shown | None:
        photo, camera = read_photo(image.source, self.corrupt, name), image.camera
        if photo is None or photo.shape[:2] == (camera.height, camera.width):
            return None if photo is None else (image, photo)
        where = name if isinstance(image.source, bytes) else image.source
        size = f"{photo.shape[1]}x{photo.shape[0]}"
        self.corrupt.add(f"{where} ({size} pixels, its camera has {camera.width}x{camera.height})")
        return None


def _crop(photo: np.ndarray, anchor_px: np.ndarray, rng: np.random.Generator, width: int, height: int) -> View:
    """A view that shows the anchor somewhere, turned a little, at a scale at which it fits into the photo."""
    size = np.array([photo.shape[1], photo.shape[0]])
    fits = float((size / [width, height]).min())
    scale = fits * np.exp(rng.uniform(np.log(0.45), 0))
    half = scale * np.array([width, height]) / 2
    centre = anchor_px + rng.uniform(-0.7, 0.7, 2) * half
    centre = np.clip(centre, half - 0.5, np.maximum(size - half - 0.5, half - 0.5))
    return View(similarity(centre, scale, np.deg2rad(rng.normal(0, 5)), width, height), width, height)


def scene_of(
    name: str, images: Sequence[PosedImage], min_points: int, with_one_of: np.ndarray | None = None
) -> PosedScene:
    """A scene of all pairs with at least ``min_points`` common points; with a mask, those with an image in it alone.

    Raises RecordingError when there is no such pair.
    """
    pairs = overlapping(images, min_points)
    if with_one_of is not None:
        pairs = pairs[with_one_of[pairs].any(1)]
    if not len(pairs):
        raise RecordingError(
            f"no two of the {len(images)} images of {name} see {min_points} common points; expected images of one "
            "place that overlap"
        )
    return PosedScene(name, tuple(images), pairs)


def overlapping(images: Sequence[PosedImage], min_points: int) -> np.ndarray:
    """Pairs (K, 2) of images with at least ``min_points`` common points."""
    ids = np.unique(np.concatenate([image.point for image in images]))
    columns = np.concatenate([np.searchsorted(ids, image.point) for image in images])
    rows = np.repeat(np.arange(len(images)), [len(image.point) for image in images])
    seen = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(images), max(len(ids), 1)))
    common = (seen @ seen.T).toarray()
    return np.argwhere(np.triu(common >= min_points, 1))


def colmap_scene(folder: str | Path, config: PairConfig) -> PosedScene:
    """The scene of a folder with ``images/`` and a model in ``sparse/0``, ``sparse`` or the folder itself.

    Raises RecordingError when the model cannot be read, no image is there or none overlap.
    """
    folder = Path(folder)
    sparse = model_folder(folder)
    if sparse is None:
        raise RecordingError(f"{folder} holds no COLMAP model: expected images/, and cameras and images in sparse/")
    model = read_model(sparse)
    paths = {image.name: folder / "images" / image.name for image in model.images}
    there = [image for image in model.images if paths[image.name].exists()]
    if not there:
        raise RecordingError(f"none of the {len(paths)} images of {sparse} is in {folder / 'images'}; copy them there")
    return scene_of(str(folder), [_posed(image, model, paths[image.name]) for image in there], config.min_points)


def _posed(image: ColmapImage, model: ColmapModel, path: Path) -> PosedImage:
    """Points where their 3D positions project: what several views agree on is more exact than one detection."""
    xyz = model.xyz_of(image.point)
    projected, visible = image.camera.project(image.cam_from_world.transform(torch.from_numpy(xyz)))
    uv_px = projected.numpy()
    trusted = visible.numpy() & (np.linalg.norm(uv_px - image.uv_px, axis=1) < TRUSTED_PX)
    point, first = np.unique(image.point[trusted], return_index=True)
    seen = np.flatnonzero(trusted)[first]
    return PosedImage(path, uv_px[seen], point, xyz[seen], image.camera, image.cam_from_world)
