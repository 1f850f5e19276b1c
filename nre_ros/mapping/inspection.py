"""Everything that can be wrong with a stored map, a sentence each; ``check_map`` stops at the first."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.mapping.coverage import coverage_of
from nre_ros.mapping.map import Map, MapArrays
from nre_ros.mapping.map_file import FILE_NAME, check_map
from nre_ros.mapping.subset import keyframe_of

LARGE_ERROR_PX = 10.0
"""No observation of a sound map is further from its landmark's projection."""
MEDIAN_ERROR_PX = 2.0
"""Half of the observations further off than this: poses, calibration and landmarks do not belong together."""
ORTHONORMAL = 1e-6
"""Largest departure of R^T R from the identity."""


@dataclass(frozen=True)
class CheckReport:
    """``faults`` make the map bad; ``remarks`` are worth knowing; ``checked`` says what was looked at. A line each."""

    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    checked: tuple[str, ...]


def inspect_map(path: str | Path) -> CheckReport:
    """Look for faults in the map in folder ``path``; never raises for what is wrong with it."""
    try:
        map_ = check_map(path)
    except MapError as error:
        return CheckReport((str(error), *_stored_faults(Path(path) / FILE_NAME)), (), ())
    errors_px = reprojection_errors_px(map_)
    faults = [*_pose_faults(map_), *_reference_faults(map_), *_projection_faults(map_, errors_px)]
    checked = (
        f"{len(fields(MapArrays))} arrays: types, sizes, references, digests; every number is finite",
        f"{map_.keyframe_count} keyframes: rotations, cameras, landmarks",
        f"{map_.landmark_count} landmarks: observations, duplicates",
        f"{map_.observation_count} observations: in front of the camera, on the image, reprojection error "
        f"median {_quantile(errors_px, 0.5):.2f} px, 95 % {_quantile(errors_px, 0.95):.2f} px, "
        f"largest {_quantile(errors_px, 1):.2f} px",
    )
    return CheckReport(tuple(faults), tuple(_remarks(map_)), checked)


def reprojection_errors_px(map_: Map) -> Tensor:
    """Distance (O,) of every observation from its landmark's projection by the stored pose; NaN behind the camera."""
    a = map_.arrays
    errors = []
    cam_from_map = map_.map_from_keyframe.inverse()
    for k in range(map_.keyframe_count):
        seen = map_.observations_of(k)
        camera = map_.cameras[int(a.keyframe_camera[k])]
        uv_px, visible = camera.project(cam_from_map[k].transform(a.xyz_map[a.landmark[seen].long()]))
        errors.append(torch.where(visible, (uv_px - a.uv_px[seen]).norm(dim=-1), torch.nan))
    return torch.cat(errors)


def array_faults(arrays: dict[str, Tensor]) -> list[str]:
    """Arrays that are missing, hold what is not finite, or refer to what is not there."""
    missing = [item.name for item in fields(MapArrays) if item.name not in arrays]
    faults = [f"array {name} is missing" for name in missing]
    for name, array in arrays.items():
        if array.is_floating_point():
            bad = int((~torch.isfinite(array)).sum())
            if bad:
                faults.append(f"array {name}: {bad} of {array.numel()} numbers are NaN or infinite")
    if {"landmark", "xyz_map"} <= arrays.keys():
        landmark, count = arrays["landmark"], len(arrays["xyz_map"])
        stray = int(((landmark < 0) | (landmark >= count)).sum())
        if stray:
            faults.append(f"array landmark: {stray} of {len(landmark)} observations refer to none of {count} landmarks")
    if {"keyframe_start", "landmark"} <= arrays.keys():
        start, count = arrays["keyframe_start"], len(arrays["landmark"])
        if not len(start) or int(start[0]) != 0 or int(start[-1]) != count or bool((start.diff() < 0).any()):
            faults.append(f"array keyframe_start does not ascend from 0 to the {count} observations")
    return faults


def _stored_faults(file: Path) -> list[str]:
    """What can be said of arrays that make no map; nothing when not even they can be read."""
    try:
        with safe_open(file, framework="pt") as stored:
            return array_faults({name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return []


def _pose_faults(map_: Map) -> list[str]:
    pose = map_.arrays.keyframe_pose
    rotation = pose[:, :3, :3]
    skew = (rotation.mT @ rotation - torch.eye(3, dtype=pose.dtype)).abs().amax((1, 2))
    bad = torch.nonzero((skew > ORTHONORMAL) | (torch.linalg.det(rotation) < 0))[:, 0]
    faults = [f"the rotation of {_some(bad, 'keyframe')} is none (R^T R departs from the identity)"] if len(bad) else []
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=pose.dtype)
    bad = torch.nonzero((pose[:, 3] != bottom).any(1))[:, 0]
    if len(bad):
        faults.append(f"the last row of the pose of {_some(bad, 'keyframe')} is not 0 0 0 1")
    return faults


def _reference_faults(map_: Map) -> list[str]:
    a, faults = map_.arrays, []
    unseen = torch.nonzero(map_.sightings == 0)[:, 0]
    if len(unseen):
        faults.append(f"no keyframe sees {_some(unseen, 'landmark')}")
    keyframe = torch.repeat_interleave(torch.arange(map_.keyframe_count), a.keyframe_start.diff())
    twice = len(keyframe) - len(torch.unique(torch.stack([keyframe, a.landmark.long()]), dim=1).T)
    if twice:
        faults.append(f"{twice} observations show a landmark a second time in the same keyframe")
    same = map_.landmark_count - len(torch.unique(a.xyz_map, dim=0))
    if same:
        faults.append(f"{same} landmarks lie exactly where another one does")
    empty = torch.nonzero(a.keyframe_start.diff() == 0)[:, 0]
    if len(empty):
        faults.append(f"{_some(empty, 'keyframe')} sees no landmark")
    return faults


def _projection_faults(map_: Map, errors_px: Tensor) -> list[str]:
    a, faults, total = map_.arrays, [], map_.observation_count
    behind = int(errors_px.isnan().sum())
    if behind:
        faults.append(f"{behind} of {total} observations are of landmarks behind the camera")
    sizes = torch.tensor([[camera.width, camera.height] for camera in map_.cameras])[a.keyframe_camera.long()]
    size = torch.repeat_interleave(sizes, a.keyframe_start.diff(), dim=0)
    outside = int(((a.uv_px < -0.5) | (a.uv_px > size - 0.5)).any(1).sum())
    if outside:
        faults.append(f"{outside} of {total} observations lie outside their image")
    large = int((errors_px > LARGE_ERROR_PX).sum())
    if large:
        faults.append(f"{large} of {total} observations are over {LARGE_ERROR_PX:g} px from their projection")
    median = _quantile(errors_px, 0.5)
    if median > MEDIAN_ERROR_PX:
        faults.append(
            f"the median reprojection error is {median:.1f} px, expected at most {MEDIAN_ERROR_PX:g}: the poses, the "
            "calibration and the landmarks do not belong together"
        )
    return faults


def _remarks(map_: Map) -> list[str]:
    stamps, remarks = map_.arrays.keyframe_stamp_ns, []
    if bool((stamps.diff() < 0).any()):
        remarks.append("the keyframes are not in the order of time: the map holds several sessions")
    again = len(stamps) - len(torch.unique(stamps))
    if again:
        remarks.append(f"{again} keyframes have the stamp of another one")
    shared = torch.zeros(map_.keyframe_count, dtype=torch.bool)
    shared[keyframe_of(map_)[map_.sightings[map_.arrays.landmark.long()] > 1]] = True
    if not bool(shared.all()):
        alone = torch.nonzero(~shared)[:, 0]
        remarks.append(f"{_some(alone, 'keyframe')} shares no landmark with any other: is its pose right?")
    weak = int(coverage_of(map_).weak.sum())
    if weak:
        remarks.append(
            f"{weak} of {map_.keyframe_count} keyframes see few landmarks: look at nre_ros map info --picture"
        )
    return remarks


def _some(index: Tensor, what: str) -> str:
    """Which ones: up to five by number."""
    numbers = ", ".join(map(str, index[:5].tolist()))
    return f"{what} {numbers}" if len(index) == 1 else f"{len(index)} {what}s ({numbers}{', ...' * (len(index) > 5)})"


def _quantile(values: Tensor, share: float) -> float:
    """Of the numbers that are none left out; NaN without any."""
    known = values[~values.isnan()].sort().values
    return float(known[round(share * (len(known) - 1))]) if len(known) else float("nan")
