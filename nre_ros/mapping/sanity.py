"""Do poses, calibration, depth and images belong together? Asked of the matches of some pairs of keyframes.

Matches are made by their descriptors alone. Where one epipolar geometry explains them, the given poses and
calibration must explain them too; where they do, the depth that follows must be the depth that was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose import hat
from nre_ros.mapping.keypoints import match
from nre_ros.mapping.tracks import View

ANCHORS = 12
"""Keyframes, evenly chosen, that are matched with a later one."""
GAPS = (8, 4, 2, 1)
"""How much later; of these, the view that moved most: it tells most."""
LEAST_MATCHES = 40
LEAST_PAIRS = 3
"""Fewer give no verdict."""
LEAST_MOTION = 4
"""Median motion of the matches of a pair, in multiples of the epipolar tolerance: less tells right from wrong badly."""
FIT_PX = 2.0
LEAST_SHARE = 0.5
"""Share of the explicable matches that the given poses must explain in the median pair."""
CLEAR_SHARE = 0.7
"""Share at which a correction of the poses is worth naming."""
DEPTH_FACTOR = 1.3
"""Measured and triangulated depth may differ by this: scale errors of odometry are smaller, wrong units larger."""
LEAST_DEPTHS = 40
LEAST_PARALLAX_DEG = 1.5
"""Of rays whose meeting point is believed."""

_UNITS = {
    1000.0: "millimetres were taken for metres",
    100.0: "centimetres were taken for metres",
    5.0: "depth images with 5000 counts a metre were read with 1000",
    3.28: "feet were taken for metres",
    0.3048: "metres were taken for feet",
    0.2: "depth images with 1000 counts a metre were read with 5000",
    0.01: "metres were taken for centimetres",
    0.001: "metres were taken for millimetres",
}


@dataclass(frozen=True)
class Pair:
    """Matches (M) of two views that one epipolar geometry explains: unit bearings (M, 3), and measured depth (M)."""

    bearings_a: Tensor
    bearings_b: Tensor
    map_from_a: Pose
    map_from_b: Pose
    focal_px: float
    depth_a: Tensor
    motion_px: float


def check_input(views: Sequence[View], depths: Sequence[Tensor], max_epipolar_px: float) -> None:
    """Raises MapError when poses, calibration or depth contradict the images; the text names the likely cause."""
    tolerance_px = 2 * max_epipolar_px
    pairs = informative_pairs(views, depths, tolerance_px)
    if len(pairs) < LEAST_PAIRS:
        return
    share = explained(pairs, tolerance_px)
    if share < LEAST_SHARE:
        count = sum(len(pair.bearings_a) for pair in pairs)
        raise MapError(
            f"poses or calibration do not belong to the images: of {count} matches in {len(pairs)} pairs of keyframes "
            f"that fit together, the given poses explain {share:.0%} (median pair; expected {LEAST_SHARE:.0%} at "
            f"least); {_cause(pairs, tolerance_px)}"
        )
    ratio, used = depth_ratio(pairs, tolerance_px)
    if used >= LEAST_DEPTHS and not 1 / DEPTH_FACTOR < ratio < DEPTH_FACTOR:
        unit = next((text for factor, text in _UNITS.items() if abs(np.log(ratio / factor)) < np.log(1.15)), "")
        raise MapError(
            f"measured depth is {ratio:.4g} times the depth that images and poses give (median of {used} matches): "
            f"{unit or 'the depth has another unit than the poses, or is not registered to the images'}; "
            "mend the depth, or map without it"
        )


def informative_pairs(views: Sequence[View], depths: Sequence[Tensor], tolerance_px: float) -> list[Pair]:
    """Up to :data:`ANCHORS` pairs with enough matches and enough motion."""
    anchors = np.unique(np.linspace(0, len(views) - 2, ANCHORS).round().astype(int))
    pairs = []
    for i in anchors:
        later = [i + gap for gap in GAPS if i + gap < len(views)]
        found = [pair for j in later if (pair := _pair(views[i], views[j], depths[i], tolerance_px))]
        if found:
            pairs.append(max(found, key=lambda pair: pair.motion_px))
    return pairs


def explained(pairs: Sequence[Pair], tolerance_px: float) -> float:
    """Share of matches that the given poses explain, median over the pairs."""
    return float(np.median([_is_explained(pair, tolerance_px).double().mean() for pair in pairs]))


def depth_ratio(pairs: Sequence[Pair], tolerance_px: float) -> tuple[float, int]:
    """Median of measured by triangulated depth, over matches with parallax that the poses explain; and their count."""
    ratios = []
    for pair in pairs:
        along_a, _, parallax = _distances(pair)
        good = _is_explained(pair, tolerance_px) & parallax & torch.isfinite(pair.depth_a)
        ratios.append((pair.depth_a / (along_a * pair.bearings_a[:, 2]))[good])
    joined = torch.cat(ratios)
    return (float(joined.median()) if len(joined) else 1.0), len(joined)


def _is_explained(pair: Pair, tolerance_px: float) -> Tensor:
    """Mask (M) of matches near their epipolar lines and not, where parallax tells, behind a camera."""
    along_a, along_b, parallax = _distances(pair)
    return (_epipolar_px(pair) < tolerance_px) & ~(parallax & ((along_a < 0) | (along_b < 0)))


def _epipolar_px(pair: Pair) -> Tensor:
    """Distance (M) of each match from its epipolar lines under the given poses: the larger of both images'."""
    b_from_a = pair.map_from_b.inverse() @ pair.map_from_a
    essential = hat(b_from_a.translation) @ b_from_a.rotation
    planes_b, planes_a = pair.bearings_a @ essential.T, pair.bearings_b @ essential
    product = (planes_b * pair.bearings_b).sum(-1).abs()
    narrow = torch.minimum(planes_a.norm(dim=-1), planes_b.norm(dim=-1)).clamp_min(1e-300)
    return product / narrow * pair.focal_px


def _distances(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Where the rays (M) of both views meet: distances along them, and a mask of those with enough parallax."""
    a_from_b = pair.map_from_a.inverse() @ pair.map_from_b
    rays_b = pair.bearings_b @ a_from_b.rotation.T
    cosine = (pair.bearings_a * rays_b).sum(-1)
    to_a, to_b = pair.bearings_a @ a_from_b.translation, rays_b @ a_from_b.translation
    determinant = (1 - cosine**2).clamp_min(1e-12)
    enough = cosine < np.cos(np.deg2rad(LEAST_PARALLAX_DEG))
    return (to_a - cosine * to_b) / determinant, (cosine * to_a - to_b) / determinant, enough


def _pair(a: View, b: View, depth_a: Tensor, tolerance_px: float) -> Pair | None:
    """None where matches are few, hardly move, or no geometry explains most of them."""
    matched, _ = match(a.keypoints, b.keypoints)
    bearings_a, bearings_b = a.bearings[matched[:, 0]], b.bearings[matched[:, 1]]
    ahead = (bearings_a[:, 2] > 0.2) & (bearings_b[:, 2] > 0.2)
    index, bearings_a, bearings_b = matched[ahead.numpy(), 0], bearings_a[ahead], bearings_b[ahead]
    if len(index) < LEAST_MATCHES:
        return None
    flat_a, flat_b = (v[:, :2] / v[:, 2:] * a.focal_px for v in (bearings_a, bearings_b))
    motion_px = float((flat_a - flat_b).norm(dim=1).median())
    if motion_px < LEAST_MOTION * tolerance_px / 2:
        return None
    _, fits = cv2.findFundamentalMat(flat_a.numpy(), flat_b.numpy(), cv2.USAC_MAGSAC, FIT_PX, 0.999, 1000)
    if fits is None or fits.sum() < max(LEAST_MATCHES, 0.5 * len(index)):
        return None
    kept = torch.from_numpy(fits[:, 0] > 0)
    return Pair(
        bearings_a[kept], bearings_b[kept], a.map_from_cam, b.map_from_cam, a.focal_px, depth_a[index][kept], motion_px
    )  # fmt: skip


def _cause(pairs: Sequence[Pair], tolerance_px: float) -> str:
    """Which change would make the poses fit, if any of the usual mistakes is it."""
    shares = {name: explained([mend(pair) for pair in pairs], tolerance_px) for name, mend in _MENDS.items()}
    name, share = max(shares.items(), key=lambda item: item[1])
    if share >= CLEAR_SHARE:
        return f"{name}: with that, {share:.0%} would fit"
    return (
        "expected map_from_cam of the camera's optical axes (x right, y down, z forward) at the images' stamps, "
        "and the calibration of these images at this size; poses that are right but rough need a larger max_epipolar_px"
    )


def _with_poses(change: Callable[[Pose], Pose]) -> Callable[[Pair], Pair]:
    return lambda pair: replace(pair, map_from_a=change(pair.map_from_a), map_from_b=change(pair.map_from_b))


def _turned(columns: Sequence[Sequence[float]]) -> Callable[[Pair], Pair]:
    turn = Pose(torch.tensor(columns, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    return _with_poses(lambda pose: pose @ turn)


def _with_focal(factor: float) -> Callable[[Pair], Pair]:
    scale = torch.tensor([factor, factor, 1.0], dtype=torch.float64)

    def mend(pair: Pair) -> Pair:
        a, b = (torch.nn.functional.normalize(v / scale, dim=1) for v in (pair.bearings_a, pair.bearings_b))
        return replace(pair, bearings_a=a, bearings_b=b, focal_px=pair.focal_px * factor)

    return mend


_MENDS: dict[str, Callable[[Pair], Pair]] = {
    "the poses are inverse (cam_from_map instead of map_from_cam)": _with_poses(Pose.inverse),
    "the poses are of body axes (x forward, y left, z up) instead of optical ones": _turned(
        [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    ),
    "the poses are of OpenGL axes (y up, z backward) instead of optical ones": _turned(
        [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    ),
    "the inverse poses of body axes were given": lambda pair: _turned([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])(
        _with_poses(Pose.inverse)(pair)
    ),
    **{
        f"the focal length in the calibration is about {1 / f:.2g} times the true one": _with_focal(f)
        for f in (0.5, 0.67, 0.8, 1.25, 1.5, 2.0)
    },
}
