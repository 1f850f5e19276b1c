"""Other libraries' robust pose estimators, on the best cell of every loss map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import ConfigError, NreError
from nre_ros.geometry import Camera, Pose
from nre_ros.nre import LossMaps

MIN_POINTS = 4
MAX_ITERATIONS = 100_000
CONFIDENCE = 0.9999
"""PoseLib's defaults; OpenCV gets the same."""


@dataclass(frozen=True)
class Matches:
    """Points ``xyz_map`` (N, 3) and their places ``uv_px`` (N, 2) in a ``camera`` without distortion."""

    xyz_map: np.ndarray
    uv_px: np.ndarray
    camera: Camera


@dataclass(frozen=True)
class Rival:
    """``solve`` takes matches, a threshold (pixels) and a seed; it gives ``cam_from_map``, or None where it fails."""

    name: str
    solve: Callable[[Matches, float, int], Pose | None]


def best_cells(xyz_map: Tensor, maps: LossMaps, camera: Camera) -> Matches:
    """The argmax of every map, as a pixel of the camera without its distortion. Maps without any gain are left out."""
    gain, flat = maps.gain.flatten(1).max(1)
    width = maps.gain.shape[-1]
    cells = torch.stack([flat % width, flat // width], -1) + maps.origin_cells
    told = gain > 0
    uv_px = maps.grid.pixel_from_cell(cells[told].double())
    return undistorted(xyz_map[told].cpu().numpy(), uv_px.cpu(), camera)


def undistorted(xyz_map: np.ndarray, uv_px: Tensor, camera: Camera) -> Matches:
    """Matches of points (N, 3) with pixels (N, 2) of a camera, whose lens is taken out of them."""
    pinhole = Camera(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
    straight, _ = pinhole.project(camera.unproject(uv_px))
    return Matches(xyz_map, straight.numpy(), pinhole)


def solve_poselib(matches: Matches, threshold_px: float, seed: int) -> Pose | None:
    """LO-RANSAC with its final refinement, as the library sets it. Raises NreError when PoseLib is not installed."""
    try:
        import poselib
    except ImportError as error:
        raise NreError(
            "PoseLib is not installed; install it by `pip install poselib`, or name other rivals by --rivals"
        ) from error
    if len(matches.xyz_map) < MIN_POINTS:
        return None
    camera = matches.camera
    pinhole = {
        "model": "PINHOLE",
        "width": camera.width,
        "height": camera.height,
        "params": [camera.fx, camera.fy, camera.cx, camera.cy],
    }
    options = {
        "max_reproj_error": threshold_px,
        "seed": seed,
        "max_iterations": MAX_ITERATIONS,
        "success_prob": CONFIDENCE,
    }
    found, report = poselib.estimate_absolute_pose(matches.uv_px, matches.xyz_map, pinhole, options, {})
    return _pose(found.R, found.t) if report["num_inliers"] >= MIN_POINTS else None


def _usac(method: int) -> Callable[[Matches, float, int], Pose | None]:
    def solve(matches: Matches, threshold_px: float, seed: int) -> Pose | None:
        """OpenCV seeds itself. Its own pose comes from a linear solver, so the inliers are given to its
        Levenberg-Marquardt, as its users do."""
        xyz_map, uv_px, intrinsics = matches.xyz_map, matches.uv_px, matches.camera.matrix()
        if len(xyz_map) < MIN_POINTS:
            return None
        found, rotation, translation, inliers = cv2.solvePnPRansac(
            xyz_map,
            uv_px,
            intrinsics,
            None,
            iterationsCount=MAX_ITERATIONS,
            reprojectionError=threshold_px,
            confidence=CONFIDENCE,
            flags=method,
        )
        if not found:
            return None
        if inliers is not None and len(inliers) >= MIN_POINTS:
            index = inliers[:, 0]
            rotation, translation = cv2.solvePnPRefineLM(
                xyz_map[index], uv_px[index], intrinsics, None, rotation, translation
            )
        return _pose(cv2.Rodrigues(rotation)[0], translation[:, 0])

    return solve


def _pose(rotation: np.ndarray, translation: np.ndarray) -> Pose | None:
    pose = Pose(torch.tensor(rotation), torch.tensor(translation))
    return pose if pose.is_finite() else None


RIVALS: dict[str, Rival] = {
    "poselib": Rival("PoseLib LO-RANSAC", solve_poselib),
    "usac_default": Rival("OpenCV USAC_DEFAULT", _usac(cv2.USAC_DEFAULT)),
    "usac_fast": Rival("OpenCV USAC_FAST", _usac(cv2.USAC_FAST)),
    "usac_accurate": Rival("OpenCV USAC_ACCURATE (GC-RANSAC)", _usac(cv2.USAC_ACCURATE)),
    "usac_magsac": Rival("OpenCV USAC_MAGSAC (MAGSAC++)", _usac(cv2.USAC_MAGSAC)),
}


def rivals_named(names: Sequence[str]) -> dict[str, Rival]:
    """By their keys in :data:`RIVALS`; raises ConfigError for another name, NreError for one that cannot run here."""
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise ConfigError(f"rival {unknown[0]!r} is unknown; known ones: {', '.join(RIVALS)}")
    chosen = {name: RIVALS[name] for name in names}
    nothing = Matches(np.zeros((0, 3)), np.zeros((0, 2)), Camera(2, 2, 1.0, 1.0, 0.5, 0.5))
    for rival in chosen.values():
        rival.solve(nothing, 1.0, 0)
    return chosen
