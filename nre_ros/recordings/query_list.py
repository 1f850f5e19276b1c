"""Lists of images with their cameras, as the long-term localization benchmarks (Aachen and others) give queries."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera
from nre_ros.recordings.colmap_cameras import KNOWN, camera_of, model_number
from nre_ros.recordings.shots import STAMP_STEP_NS, Shot, ShotList, ShotRecording, missing_files

IMAGE_FOLDERS = ("", "images_upright", "images")
"""Where the images lie, seen from the list or a folder above it."""
ABOVE = 3
"""Folders above the list that are looked into."""


def is_query_list(file: Path) -> bool:
    """A text file whose first line is "image-name CAMERA_MODEL width height ..."."""
    if file.suffix != ".txt" or not file.is_file():
        return False
    try:
        with file.open(encoding="utf-8") as stream:
            words = stream.readline().split()
        return len(words) > 4 and model_number(words[1]) >= 0 and words[2].isdigit()
    except (OSError, UnicodeDecodeError, ValueError):
        return False


def open_query_list(file: Path) -> ShotRecording:
    """Images without poses, a line "name MODEL width height parameters" each, as COLMAP names cameras. Stamps are made
    up: a second between images in the order of the list.

    Raises RecordingError and CalibrationError.
    """
    rows = [
        (n, line.split()) for n, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1) if line.strip()
    ]
    root = _root(file, [words[0] for _, words in rows])
    told = missing_files([root / words[0] for _, words in rows], f"images of {file}")
    shots = []
    for i, (number, words) in enumerate(rows):
        camera = _camera(words, f"{file} line {number}")
        if (root / words[0]).is_file():
            shots.append(Shot(i * STAMP_STEP_NS, words[0], root / words[0], camera, None))
    return ShotRecording(file, ShotList(shots, "metre", told=told))


def _root(file: Path, names: list[str]) -> Path:
    """The folder that the names are relative to."""
    above = [*file.resolve().parents][:ABOVE]
    for folder in (place / sub for place in above for sub in IMAGE_FOLDERS):
        if any((folder / name).is_file() for name in names[:20]):
            return folder
    raise RecordingError(
        f"the images of {file}, such as {names[0]}, lie neither beside it nor in {' or '.join(IMAGE_FOLDERS[1:])} of "
        f"the {ABOVE} folders above; put the list into the data set's folder"
    )


def _camera(words: list[str], where: str) -> Camera:
    try:
        number = model_number(words[1])
        camera = camera_of(number, int(words[2]), int(words[3]), [float(v) for v in words[4:]])
    except (ValueError, IndexError) as error:
        raise RecordingError(f"{where} holds no camera ({error}), expected 'name MODEL width height numbers'") from None
    if not isinstance(camera, Camera):
        raise CalibrationError(f"{where} has the camera model {camera}, which ROS has no name for; expected {KNOWN}")
    return camera
