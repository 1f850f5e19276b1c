"""Folders of the EuRoC MAV data set, and of others in its format (ASL): TUM-VI, Kalibr's recorders."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.geometry.pose_track import PoseTrack, TransformError, pose_from_rigid, rigid_from_xyzw
from nre_ros.recordings.camera_info import read_calibration
from nre_ros.recordings.shots import Shot, ShotList, ShotRecording, missing_files, pose_from_rows

CAMERA_FOLDER = "cam0"
TRUTH_FOLDERS = ("state_groundtruth_estimate0", "mocap0")
NEAREST_NS = 5_000_000
"""Where interpolation is impossible, a pose this near to the image is taken as it is."""
MAX_GAP_NS = 100_000_000
_MODELS = {"radial-tangential": DistortionModel.PLUMB_BOB, "radtan": DistortionModel.PLUMB_BOB}
_MODELS |= {"equidistant": DistortionModel.EQUIDISTANT}


def euroc_folder(folder: Path) -> Path | None:
    """Where ``cam0/data.csv`` lies: in the folder, or in its ``mav0``."""
    places = (folder, folder / "mav0")
    return next((place for place in places if (place / CAMERA_FOLDER / "data.csv").is_file()), None)


def open_euroc(folder: Path) -> ShotRecording:
    """``cam0`` with its images, ``sensor.yaml`` (intrinsics, and T_BS: body_from_cam) and the ground truth of the body,
    ``state_groundtruth_estimate0/data.csv`` (EuRoC) or ``mocap0/data.csv`` (TUM-VI): time in ns, position, quaternion
    w x y z, anything after that. Poses are interpolated at the images' stamps, between samples less than 0.1 s apart.

    Without ground truth the images have no poses. Raises RecordingError, and CalibrationError where sensor.yaml lacks
    the intrinsics or the extrinsics.
    """
    place = euroc_folder(folder)
    if place is None:
        raise RecordingError(f"{folder} has no mav0/{CAMERA_FOLDER}/data.csv, so it is no EuRoC folder")
    sensor = place / CAMERA_FOLDER / "sensor.yaml"
    content = read_calibration(sensor)
    camera, body_from_cam = _camera(content, sensor), _extrinsics(content, sensor)
    track = _truth(place)
    files = [(stamp_ns, name) for stamp_ns, (name, *_) in _rows(place / CAMERA_FOLDER / "data.csv", 1)]
    images = place / CAMERA_FOLDER / "data"
    told = missing_files([images / name for _, name in files], f"images of {images}")
    shots = [
        Shot(stamp_ns, name, images / name, camera, _pose(track, stamp_ns, body_from_cam))
        for stamp_ns, name in files
        if (images / name).is_file()
    ]
    if not track:
        told.append(f"{place} has no {' or '.join(TRUTH_FOLDERS)}, so its images have no poses")
    return ShotRecording(folder, ShotList(shots, "metre", told=told))


def _pose(track: PoseTrack, stamp_ns: int, body_from_cam: Pose) -> Pose | None:
    try:
        return pose_from_rigid(track.at_or_near(stamp_ns, NEAREST_NS)) @ body_from_cam
    except TransformError:
        return None


def _truth(place: Path) -> PoseTrack:
    track = PoseTrack("ground truth", max_gap_ns=MAX_GAP_NS)
    file = next((f for name in TRUTH_FOLDERS if (f := place / name / "data.csv").is_file()), None)
    for stamp_ns, words in _rows(file, 7) if file is not None else ():
        try:
            x, y, z, qw, qx, qy, qz = (float(word) for word in words[:7])
            track.add(stamp_ns, rigid_from_xyzw((x, y, z), (qx, qy, qz, qw)))
        except (ValueError, TransformError) as error:
            raise RecordingError(f"{file} has no pose at {stamp_ns} ns: {error}") from None
    return track


def _rows(file: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Stamp and further words of each line that is no comment; raises RecordingError."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for number, words in enumerate(csv.reader(stream, skipinitialspace=True), 1):
                if not words or words[0].startswith("#"):
                    continue
                if not words[0].isdigit() or len(words) < 1 + columns:
                    raise RecordingError(
                        f"{file} line {number} is {','.join(words)!r}, expected a time in ns and {columns} more columns"
                    )
                yield int(words[0]), [word.strip() for word in words[1:]]
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file} cannot be read: {error}") from None


def _camera(content: dict[str, Any], file: Path) -> Camera:
    try:
        width, height = (int(v) for v in content["resolution"])
        fx, fy, cx, cy = (float(v) for v in content["intrinsics"])
        model = str(content["distortion_model"])
        coefficients = tuple(float(v) for v in content["distortion_coefficients"])
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"{file} lacks a usable {error}; expected resolution [w, h], intrinsics [fu, fv, cu, cv], "
            "distortion_model and distortion_coefficients"
        ) from None
    if model not in _MODELS:
        raise CalibrationError(f"{file} has the distortion_model {model!r}, expected {', '.join(_MODELS)}")
    return Camera(width, height, fx, fy, cx, cy, model=_MODELS[model], distortion=coefficients)


def _extrinsics(content: dict[str, Any], file: Path) -> Pose:
    try:
        numbers = [float(v) for v in content["T_BS"]["data"]]
        return pose_from_rows([numbers[i : i + 4] for i in range(0, 16, 4)])
    except (KeyError, TypeError, ValueError, RecordingError) as error:
        raise CalibrationError(
            f"{file} has no usable T_BS ({error}), so the body's poses do not tell the camera's; expected "
            "T_BS: {rows: 4, cols: 4, data: [...]} of body_from_camera"
        ) from None
