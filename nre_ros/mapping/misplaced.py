"""Single keyframes whose pose is wrong among good ones: they would put a second copy of what they see into the map.

Such a keyframe shares few landmarks with others. Where the images before and after it know where it belongs, by the
landmarks that they and others see, and that is elsewhere, it is named and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry import Pose, pose_error
from nre_ros.mapping.keypoints import match
from nre_ros.mapping.landmarks import Sighting
from nre_ros.mapping.map import Map
from nre_ros.mapping.subset import keyframe_of, subset
from nre_ros.mapping.tracks import View

WITNESSES = 2
"""Other keyframes that must see a landmark for it to be believed."""
SUSPECT_SHARE = 0.5
"""A keyframe with fewer believed landmarks than this share of the median one's is looked at."""
BEFORE_AND_AFTER = (-2, -1, 1, 2)
LEAST_MATCHES = 30
"""Matches with believed landmarks that one pose must explain, and half of all."""
OFF_FACTOR = 3.0
"""A pose is wrong if it leaves these this far off, median, in multiples of the largest reprojection error."""
MOST_SHARE = 0.2
"""More wrong keyframes than this are no exceptions."""


@dataclass(frozen=True)
class Misplaced:
    """Keyframe ``index`` belongs ``distance`` (map unit) and ``angle_deg`` from where its pose says."""

    index: int
    distance: float
    angle_deg: float


def find_misplaced(
    views: Sequence[View], sightings: Sequence[Sighting], xyz_map: Tensor, max_reprojection_px: float
) -> list[Misplaced]:
    """Keyframes whose pose contradicts what their neighbours in time know of them; ``xyz_map`` (L, 3)."""
    times_seen = torch.bincount(torch.cat([mine.landmark for mine in sightings]), minlength=len(xyz_map))
    believed = torch.tensor([int((times_seen[mine.landmark] > WITNESSES).sum()) for mine in sightings])
    few = SUSPECT_SHARE * float(believed.double().median())
    found = []
    for index in torch.nonzero(believed < few)[:, 0].tolist():
        bearings, xyz = _known_of(index, views, sightings, xyz_map, times_seen)
        map_from_cam = _located(bearings, xyz, max_reprojection_px / views[index].focal_px)
        if map_from_cam is None:
            continue
        given = views[index].map_from_cam
        if _error_px(given, bearings, xyz, views[index].focal_px) > OFF_FACTOR * max_reprojection_px:
            angle_deg, distance = pose_error(given, map_from_cam)
            found.append(Misplaced(index, float(distance), float(angle_deg)))
    return found


def without_misplaced(map_: Map, wrong: Sequence[Misplaced]) -> tuple[Map, list[str]]:
    """The map without these keyframes, and a sentence about each.

    Landmarks that they saw stay where enough others see them too. Raises MapError when the wrong ones are too many.
    """
    unit = "m" if map_.unit == "metre" else "units"
    told = [
        f"the keyframe at {int(map_.keyframe_stamps_ns[each.index]) / 1e9:.3f} s has a wrong pose: by what it shows it "
        f"lies {each.distance:.3g} {unit} and {each.angle_deg:.3g} deg from there; it is left out"
        for each in wrong
    ]
    if len(wrong) > MOST_SHARE * map_.keyframe_count:
        raise MapError(
            f"{len(wrong)} of {map_.keyframe_count} keyframes have poses that contradict their neighbours, expected "
            f"{MOST_SHARE:.0%} at most: mend the poses; {told[0].removesuffix('; it is left out')}"
        )
    if not wrong:
        return map_, []
    kept = torch.ones(map_.keyframe_count, dtype=torch.bool)
    kept[[each.index for each in wrong]] = False
    by_kept = kept[keyframe_of(map_)]
    seen = torch.bincount(map_.arrays.landmark[by_kept], minlength=map_.landmark_count)
    return subset(map_, (seen == map_.sightings) | (seen >= WITNESSES), kept), told


def _known_of(
    index: int, views: Sequence[View], sightings: Sequence[Sighting], xyz_map: Tensor, times_seen: Tensor
) -> tuple[Tensor, Tensor]:
    """Bearings (M, 3) of a view's keypoints and the landmarks (M, 3) that the views before and after see there."""
    own = torch.zeros(len(xyz_map), dtype=torch.long)
    own[sightings[index].landmark] = 1
    bearings, xyz = [torch.zeros((0, 3), dtype=torch.float64)], [torch.zeros((0, 3), dtype=torch.float64)]
    for other in (index + step for step in BEFORE_AND_AFTER):
        if not 0 <= other < len(views):
            continue
        landmark = torch.full((len(views[other].keypoints),), -1)
        detected = sightings[other].place < len(landmark)
        landmark[sightings[other].place[detected]] = sightings[other].landmark[detected]
        pairs = torch.from_numpy(match(views[index].keypoints, views[other].keypoints)[0])
        shown = landmark[pairs[:, 1]]
        good = (shown >= 0) & ((times_seen - own)[shown] >= WITNESSES)
        bearings.append(views[index].bearings[pairs[good, 0]])
        xyz.append(xyz_map[shown[good]])
    return torch.cat(bearings), torch.cat(xyz)


def _located(bearings: Tensor, xyz: Tensor, tolerance: float) -> Pose | None:
    """map_from_cam by landmarks, to a ``tolerance`` in normalised image coordinates; None where they do not agree."""
    ahead = bearings[:, 2] > 0.2
    flat = (bearings[ahead, :2] / bearings[ahead, 2:]).numpy()
    if len(flat) < LEAST_MATCHES:
        return None
    found, turn, move, inliers = cv2.solvePnPRansac(
        xyz[ahead].numpy(),
        flat,
        np.eye(3),
        None,
        iterationsCount=500,
        reprojectionError=tolerance,
        flags=cv2.SOLVEPNP_P3P,
    )
    if not found or inliers is None or len(inliers) < max(LEAST_MATCHES, 0.5 * len(flat)):
        return None
    rotation = torch.from_numpy(cv2.Rodrigues(turn)[0])
    return Pose(rotation, torch.from_numpy(move[:, 0])).inverse()


def _error_px(map_from_cam: Pose, bearings: Tensor, xyz: Tensor, focal_px: float) -> float:
    """Median angle between bearings and landmarks, in pixels."""
    seen = torch.nn.functional.normalize(map_from_cam.inverse().transform(xyz), dim=-1)
    return float((seen - torch.nn.functional.normalize(bearings, dim=-1)).norm(dim=-1).median()) * focal_px
