"""COLMAP reconstructions: images and the sparse model that gives their cameras and poses."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import RecordingError
from nre_ros.recordings.colmap_cameras import KNOWN
from nre_ros.recordings.colmap_model import model_suffix, read_model
from nre_ros.recordings.shots import STAMP_STEP_NS, Shot, ShotList, ShotRecording, missing_files


def model_folder(folder: Path) -> Path | None:
    """Where the model of a reconstruction lies: ``sparse/0``, ``sparse``, or the folder itself."""
    places = (folder / "sparse" / "0", folder / "sparse", folder)
    return next((place for place in places if model_suffix(place)), None)


def open_colmap(folder: Path) -> ShotRecording:
    """A folder with ``images/`` and a model, or the folder of one of several models (``sparse/1``).

    COLMAP knows no time: stamps are made up, one second apart in the order of the images' names. The unit is
    arbitrary: COLMAP knows no scale. A ``split.txt`` in the folder gives roles, a line "image-name role" each. Images
    of a camera model that ROS has no name for are left out and told.

    Raises RecordingError for a damaged model and where no image of it is there.
    """
    model_at = model_folder(folder)
    if model_at is None:
        raise RecordingError(f"{folder} holds no COLMAP model: expected cameras and images, .bin or .txt")
    model = read_model(model_at)
    images_at = _images_folder(folder, model_at)
    images = sorted(model.images, key=lambda image: image.name)
    shots = [
        Shot(i * STAMP_STEP_NS, image.name, images_at / image.name, image.camera, image.cam_from_world.inverse())
        for i, image in enumerate(images)
    ]
    told = [
        f"{count} images of {model_at} are left out: their camera model {name} is not read, expected {KNOWN}; "
        "undistort them with: colmap image_undistorter"
        for name, count in model.refused.items()
    ]
    told += missing_files([shot.file for shot in shots], f"images of {model_at}")
    there = [shot for shot in shots if shot.file.is_file()]
    return ShotRecording(folder, ShotList(there, "arbitrary", told=told, remarks=_other_models(model_at)))


def _images_folder(folder: Path, model_at: Path) -> Path:
    places = [folder / "images"]
    if model_at == folder:
        places += [folder.resolve().parent / "images", folder.resolve().parent.parent / "images"]
    for place in places:
        if place.is_dir():
            return place
    raise RecordingError(f"COLMAP model {model_at} comes without its images: expected them in {places[0]}")


def _other_models(model_at: Path) -> list[str]:
    if model_at.name != "0":
        return []
    others = sorted(p.name for p in model_at.parent.iterdir() if p != model_at and model_suffix(p))
    if not others:
        return []
    return [f"{model_at} is read; beside it lie the models {', '.join(others)}, each of which can be named instead"]
