"""Folders of the 7-Scenes data set, and of recorders that write as it does."""

from __future__ import annotations

import re
from pathlib import Path

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, Pose
from nre_ros.recordings.camera_info import camera_from_mapping, read_calibration
from nre_ros.recordings.shots import DepthCounts, Shot, ShotList, ShotRecording, pose_from_rows
from nre_ros.recordings.tables import read_lines

CAMERA = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)
"""Of the data set's colour images, as the literature takes it: the data set brings no calibration."""
DEPTH = DepthCounts(per_metre=1000.0, unknown=65535)
STEP_NS = 33_333_333
SEQUENCE_NS = 1_000_000_000_000

_FRAME = re.compile(r"frame-(\d+)\.color\.(png|jpg)")
_SPLITS = {"TrainSplit.txt": "map", "TestSplit.txt": "query"}


def is_seven_scenes(folder: Path) -> bool:
    """Whether the folder, or a sequence in it, holds ``frame-000000.color.png`` and so on."""
    return any(next(place.glob("frame-*.color.*"), None) is not None for place in _sequences(folder).values())


def open_seven_scenes(folder: Path) -> ShotRecording:
    """A scene with ``seq-01/``, ``seq-02/``..., or one of the sequences.

    Frames carry ``.color.png``, ``.pose.txt`` (map_from_cam, 4 x 4, metres) and ``.depth.png`` (millimetres; 0 and
    65535 are unknown). ``TrainSplit.txt`` and ``TestSplit.txt`` give the roles map and query. Stamps are made up: frame
    i of sequence n is at 1000 n seconds and i thirtieths.

    A ROS ``camera.yaml`` in the folder replaces the calibration of the literature (525, 525, 320, 240). The depth
    of the original data is not registered to the colour images (another camera, about 585 pixels of focal length), so
    depth is used only where camera.yaml says ``depth_registered: true``.

    Raises RecordingError and CalibrationError.
    """
    camera, registered = _calibration(folder / "camera.yaml")
    shots, told = [], []
    for name, (stamp_ns, file) in _frames(folder).items():
        pose, trouble = _pose(_beside(file, ".pose.txt"))
        told += trouble
        shots.append(Shot(stamp_ns, name, file, camera, pose, _beside(file, ".depth.png") if registered else None))
    if not registered and any(_beside(shot.file, ".depth.png").is_file() for shot in shots):
        told.append(
            f"depth images of {folder} are left out: those of 7-Scenes are not registered to the colour images; where "
            "yours are, write depth_registered: true into camera.yaml"
        )
    return ShotRecording(folder, ShotList(shots, "metre", _roles(folder, shots), DEPTH, told))


def _sequences(folder: Path) -> dict[int, Path]:
    """Place of each sequence by its number; the folder itself, as number 0, where it holds frames."""
    numbered = {}
    for place in sorted(folder.glob("seq-*")):
        digits = place.name.removeprefix("seq-")
        if place.is_dir() and digits.isdigit():
            numbered[int(digits)] = place
    return numbered or {0: folder}


def _frames(folder: Path) -> dict[str, tuple[int, Path]]:
    """Stamp and colour image by name relative to the folder."""
    found = {}
    for number, place in _sequences(folder).items():
        for file in sorted(place.iterdir()):
            if match := _FRAME.fullmatch(file.name):
                found[str(file.relative_to(folder))] = (number * SEQUENCE_NS + int(match[1]) * STEP_NS, file)
    return found


def _beside(colour: Path, suffix: str) -> Path:
    """The file of the same frame."""
    return colour.with_name(colour.name.split(".")[0] + suffix)


def _pose(file: Path) -> tuple[Pose | None, list[str]]:
    try:
        return pose_from_rows([line.split() for line in file.read_text().splitlines() if line.strip()]), []
    except OSError:
        return None, [f"{file} is missing or cannot be read, so its image has no pose"]
    except (UnicodeDecodeError, RecordingError) as error:
        return None, [f"{file} is left out, so its image has no pose: {error}"]


def _calibration(file: Path) -> tuple[Camera, bool]:
    """The camera, and whether depth is registered to it."""
    if not file.is_file():
        return CAMERA, False
    content = read_calibration(file)
    registered = content.get("depth_registered", False)
    if not isinstance(registered, bool):
        raise CalibrationError(f"{file} has depth_registered {registered!r}, expected true or false")
    return (camera_from_mapping(content, str(file)) if "camera_matrix" in content else CAMERA), registered


def _roles(folder: Path, shots: list[Shot]) -> dict[str, str]:
    """By image; the tables name sequences as "sequence3"."""
    role_of: dict[int, str] = {}
    for table, role in _SPLITS.items():
        for word in filter(None, map(str.strip, read_lines(folder / table) if (folder / table).is_file() else [])):
            digits = word.removeprefix("sequence").removeprefix("seq-")
            if not digits.isdigit():
                raise RecordingError(f"{folder / table} has the line {word!r}, expected lines such as sequence1")
            role_of[int(digits)] = role
    return {s.name: role_of[n] for s in shots if (n := s.stamp_ns // SEQUENCE_NS) in role_of}
