"""The unit of a structure from motion, which images do not tell: from other poses, from depth or from a distance."""

from __future__ import annotations

import torch

from nre_ros.errors import MapError
from nre_ros.geometry import Pose
from nre_ros.geometry.alignment import Alignment, Similarity, align_poses
from nre_ros.mapping.sfm import SfmPoses
from nre_ros.mapping.sfm_views import SfmView

LEAST_POSES = 3
DISTANCE_SHARE = 0.1
"""Odometry may be off by this share of the way's extent, and by :data:`ANGLE_DEG`, where it counts as agreeing."""
ANGLE_DEG = 10.0
LEAST_AGREEING = 0.5
SCALE_DEVIATION = 0.1
"""Of the scale, as a share of it: beyond, the way was too short for what odometry is off by."""
LEAST_FURTHER_POSES = 5
LEAST_FURTHER_AGREEING = 0.8
"""Of the poses of a part that nothing but odometry joins to the first."""
LEAST_DEPTHS = 50
DEPTH_SPREAD = 0.15
"""Most that the ratios of depth may differ (half the distance between quartiles, as a share): more is no agreement."""


def aligned_to_given(poses: SfmPoses, views: list[SfmView]) -> Alignment:
    """``given_from_world`` from the views that have a pose of their own, such as odometry's.

    Raises MapError where these are too few, lie in one place, or disagree with the images.
    """
    shared = [(pose, given) for k, pose in poses.world_from_cam.items() if (given := views[k].given) is not None]
    if len(shared) < LEAST_POSES:
        raise MapError(
            f"{len(shared)} of {len(poses.world_from_cam)} placed frames have a pose of the recording, expected at "
            f"least {LEAST_POSES} for a scale; name the odometry with --pose-topic, or give --sfm-distance"
        )
    world_from_cam, given_from_cam = (_stacked(column) for column in zip(*shared, strict=True))
    centres = given_from_cam.translation
    extent = float((centres - centres.mean(0)).norm(dim=-1).max())
    found = align_poses(
        world_from_cam,
        given_from_cam,
        max_distance=max(DISTANCE_SHARE * extent, 1e-9),
        max_angle_deg=ANGLE_DEG,
        with_scale=True,
    )
    agreeing = int(found.inlier.sum())
    if agreeing < max(LEAST_POSES, LEAST_AGREEING * len(shared)):
        raise MapError(
            f"{agreeing} of {len(shared)} poses of the recording agree with those that the images give (within "
            f"{DISTANCE_SHARE * extent:.3g} and {ANGLE_DEG:g} deg), expected half: odometry, its frames or the "
            "calibration are wrong"
        )
    if not found.scale_deviation < SCALE_DEVIATION:
        raise MapError(
            f"the scale is known to {found.scale_deviation:.0%} only, expected {SCALE_DEVIATION:.0%}: the camera "
            "moved too little for its odometry"
        )
    return found


def agreeing_with_given(poses: SfmPoses, views: list[SfmView], found: Alignment) -> dict[int, Pose]:
    """``given_from_cam`` by the position of the view, without those that contradict the view's given pose: one of both
    is wrong then, and a wrong pose is worse for a map than a frame less."""
    agrees = iter(found.inlier.tolist())
    kept = {k: pose for k, pose in poses.world_from_cam.items() if views[k].given is None or next(agrees)}
    return moved_by(found.b_from_a, kept)


def further_by_given(poses: SfmPoses, views: list[SfmView]) -> dict[int, Pose]:
    """The same of a part that nothing but its given poses joins to the first; none where too few agree."""
    try:
        found = aligned_to_given(poses, views)
    except MapError:
        return {}
    agreeing = int(found.inlier.sum())
    if agreeing < max(LEAST_FURTHER_POSES, LEAST_FURTHER_AGREEING * len(found.inlier)):
        return {}
    return agreeing_with_given(poses, views, found)


def moved_by(map_from_world: Similarity, world_from_cam: dict[int, Pose]) -> dict[int, Pose]:
    """``map_from_cam`` by the position of the view."""
    moved = map_from_world.move(_stacked(tuple(world_from_cam.values())))
    return {k: moved[n] for n, k in enumerate(world_from_cam)}


def scaled_to_depth(poses: SfmPoses) -> tuple[Similarity, int, float]:
    """``metric_from_world`` by the measured depth of the points: also how many, and the spread of their ratios, half
    the distance between quartiles as a share. Raises MapError where depth is missing or contradicts itself."""
    ratio = poses.depth_ratios
    if len(ratio) < LEAST_DEPTHS:
        raise MapError(
            f"{len(ratio)} points have measured depth, expected at least {LEAST_DEPTHS} for a scale; has the recording "
            "depth that is registered to the images?"
        )
    low, middle, high = (float(v) for v in ratio.quantile(ratio.new_tensor([0.25, 0.5, 0.75])))
    spread = (high - low) / (2 * middle)
    if spread > DEPTH_SPREAD:
        raise MapError(
            f"measured depth and that of the images are in ratios that differ by {spread:.0%}, expected at most "
            f"{DEPTH_SPREAD:.0%}: the depth is not registered to the images, or the calibration is wrong"
        )
    return _enlarged(middle), len(ratio), spread


def scaled_to_distance(poses: SfmPoses, views: list[SfmView], first: int, second: int, metres: float) -> Similarity:
    """``metric_from_world`` so that the cameras of two views, by their positions, are ``metres`` apart.

    Raises MapError where one was not placed, or both are in one place.
    """
    centres = []
    for k in (first, second):
        pose = poses.world_from_cam.get(k)
        if pose is None:
            raise MapError(
                f"frame {views[k].name or k} could not be placed, so its distance gives no scale; name another"
            )
        centres.append(pose.translation)
    apart = float((centres[1] - centres[0]).norm())
    extent = max(float((pose.translation - centres[0]).norm()) for pose in poses.world_from_cam.values())
    if not apart > 1e-3 * extent:
        raise MapError("the two frames of --sfm-distance were taken from one place; name two that are far apart")
    return _enlarged(metres / apart)


def _enlarged(scale: float) -> Similarity:
    still = Similarity.identity()
    return Similarity(torch.tensor(scale, dtype=torch.float64), still.rotation, still.translation)


def _stacked(poses: tuple[Pose, ...]) -> Pose:
    return Pose(torch.stack([p.rotation for p in poses]), torch.stack([p.translation for p in poses]))
