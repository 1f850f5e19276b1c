"""Synthetic landmarks with loss maps, drawn from a seed: what pose estimators are compared on.

A map is the softmax of bumps and smooth noise, truncated as Eq. 5 has it. Depths, heights, widths and jitter follow
the golden cases of the original code, so that errors compare with those published for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import ConfigError
from nre_ros.evaluation.fine_bumps import FineBumps, bumps, smooth_noise
from nre_ros.geometry import Camera, CellGrid, DistortionModel, Pose
from nre_ros.nre import LossMaps

WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
MARGIN_PX = 5.0
"""Points project at least so far inside the image, but for the far ones."""
DEPTHS = (4.0, 12.0)
"""The map's unit may be read as metres."""
FAR_SHARE = 0.4
"""Share of the wrong points that are drawn over twice the image's width and height: most of these are out of view."""
COARSE_HEIGHTS, COARSE_WIDTHS, COARSE_JITTER = (6.0, 10.0), (0.7, 1.6), 0.25
"""Of a bump: height (logits, at stride 16), width (sigma, cells), and how far (sigma, cells) it is off its place."""
FINE_HEIGHTS, FINE_WIDTHS, FINE_JITTER = (6.0, 11.0), (0.8, 1.9), 0.35
WRONG_LOWER = 1.0
"""By how much the bumps of wholly wrong maps are lower."""
WEAKER = (1.5, 3.0)
"""By how much the right mode of a map is weaker than its wrong one."""
SHIFT_PX = (64.0, 160.0)
"""How far repeated structure lies from what it repeats."""
FINE_STRIDE = 2
STRAY_CELLS = 16.0
"""The fine maps of wrong points have a bump within so many cells (x and y) of the truth."""

CAMERAS: dict[str, tuple[DistortionModel, tuple[float, ...]]] = {
    "pinhole": (DistortionModel.PLUMB_BOB, ()),
    "plumb_bob": (DistortionModel.PLUMB_BOB, (-0.28, 0.09, 0.001, -0.0005, -0.01)),
    "rational": (DistortionModel.RATIONAL, (0.5, 0.1, 0.0005, -0.001, 0.01, 0.8, 0.25, 0.02)),
    "equidistant": (DistortionModel.EQUIDISTANT, (-0.02, 0.005, -0.002, 0.0003)),
}


class Kind(IntEnum):
    """What a landmark's coarse map looks like."""

    RIGHT = 0
    """One mode, at the truth."""
    WEAKER = 1
    """Two modes: the stronger one is wrong, anywhere on the image."""
    REPEATED = 2
    """Two modes alike: one at the truth, the other shifted by what all the case's repeated landmarks are shifted by."""
    SHIFTED = 3
    """One mode, shifted from the truth as the repeated ones are."""
    WRONG = 4
    """One mode, anywhere on the image."""


@dataclass(frozen=True)
class CaseSpec:
    """A kind of case; what ``shares`` leaves over goes to wholly wrong maps. ``camera`` is a name of ``CAMERAS``."""

    name: str
    points: int
    stride: int
    shares: Mapping[Kind, float] = field(hash=False)
    camera: str = "pinhole"


def _wrong(points: int, stride: int, percent: int, camera: str = "pinhole") -> CaseSpec:
    name = f"n{points}_s{stride}_w{percent}" + ("" if camera == "pinhole" else f"_{camera}")
    return CaseSpec(name, points, stride, {Kind.RIGHT: 1 - percent / 100}, camera)


GROUPS: dict[str, tuple[CaseSpec, ...]] = {
    "wrong": tuple(_wrong(1000, 16, percent) for percent in (30, 50, 70, 80, 90)),
    "size": (_wrong(100, 16, 50), _wrong(200, 16, 50), _wrong(3000, 16, 50)),
    "stride8": (_wrong(200, 8, 50), _wrong(1000, 8, 50), _wrong(1000, 8, 80), _wrong(3000, 8, 50)),
    "few": (_wrong(200, 16, 93), _wrong(200, 8, 93), _wrong(100, 8, 80)),
    "modes": (
        CaseSpec("n1000_s16_multimodal", 1000, 16, {Kind.RIGHT: 0.35, Kind.WEAKER: 0.65}),
        CaseSpec("n200_s8_repeated", 200, 8, {Kind.RIGHT: 0.36, Kind.REPEATED: 0.24}),
        CaseSpec("n1000_s16_shifted", 1000, 16, {Kind.RIGHT: 0.4, Kind.SHIFTED: 0.3}),
    ),
    "camera": tuple(_wrong(1000, 16, 50, camera) for camera in ("plumb_bob", "rational", "equidistant")),
}
"""What the benchmark runs. ``n1000_s16_w50`` has 1000 landmarks, stride 16 and 50 % wrong maps."""


def specs_named(names: Sequence[str]) -> list[CaseSpec]:
    """Cases by their names or their groups', without repetition; raises ConfigError for a name that is neither."""
    every = {spec.name: (spec,) for group in GROUPS.values() for spec in group} | GROUPS
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ConfigError(f"case {unknown[0]!r} is unknown; known ones: {', '.join(every)}")
    return list({spec.name: spec for name in names for spec in every[name]}.values())


@dataclass(frozen=True)
class Case:
    """Landmarks ``xyz_map`` (N, 3) float64, their maps, and the truth: ``cam_from_map`` and each landmark's ``kind``
    (N,) as :class:`Kind` and projection ``true_px`` (N, 2)."""

    spec: CaseSpec
    seed: int
    camera: Camera
    xyz_map: Tensor
    coarse: LossMaps
    fine: FineBumps
    cam_from_map: Pose
    kind: Tensor
    true_px: Tensor


def draw_case(spec: CaseSpec, seed: int) -> Case:
    """The same for the same arguments. The order of kinds among the landmarks is random."""
    rng = np.random.default_rng(seed)
    model, distortion = CAMERAS[spec.camera]
    camera = Camera(WIDTH, HEIGHT, FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2, model, distortion)
    kind = _draw_kinds(rng, spec)
    xyz_cam, true_px = _draw_points(rng, camera, kind)
    cam_from_map = _draw_pose(rng)
    modes_px = _draw_modes(rng, kind, true_px)
    coarse = _coarse_maps(rng, spec.stride, kind, modes_px)
    fine = _fine_bumps(rng, kind, modes_px, true_px)
    return Case(
        spec=spec,
        seed=seed,
        camera=camera,
        xyz_map=cam_from_map.inverse().transform(torch.from_numpy(xyz_cam)),
        coarse=coarse,
        fine=fine,
        cam_from_map=cam_from_map,
        kind=torch.from_numpy(kind),
        true_px=torch.from_numpy(true_px),
    )


def _draw_kinds(rng: np.random.Generator, spec: CaseSpec) -> np.ndarray:
    """(N,), with each kind's share exact to rounding."""
    ends = np.round(spec.points * np.cumsum(list(spec.shares.values()))).astype(int)
    kind = np.full(spec.points, int(Kind.WRONG))
    for which, start, end in zip(spec.shares, [0, *ends[:-1]], ends, strict=True):
        kind[start:end] = int(which)
    return rng.permutation(kind)


def _draw_points(rng: np.random.Generator, camera: Camera, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera-frame points (N, 3), even over the image and over their depths, and their pixels (N, 2)."""
    size = np.array([WIDTH, HEIGHT])
    uv_px = rng.uniform(MARGIN_PX, size - 1 - MARGIN_PX, (len(kind), 2))
    far = (kind == Kind.WRONG) & (rng.random(len(kind)) < FAR_SHARE)
    uv_px = np.where(far[:, None], rng.uniform(-size / 2, 1.5 * size, (len(kind), 2)), uv_px)
    bearing = camera.unproject(torch.from_numpy(uv_px)).numpy()
    # far outside the image a distortion model may have no inverse; any point out there will do
    pinhole = np.column_stack([(uv_px - (size - 1) / 2) / FOCAL, np.ones(len(kind))])
    bearing = np.where(far[:, None], pinhole, bearing / bearing[:, 2:])
    xyz_cam = bearing * rng.uniform(*DEPTHS, (len(kind), 1))
    return xyz_cam, camera.project(torch.from_numpy(xyz_cam))[0].numpy()


def _draw_pose(rng: np.random.Generator) -> Pose:
    """``cam_from_map`` with an even rotation."""
    translation = torch.from_numpy(rng.uniform(-5, 5, 3))
    return Pose.from_quat_xyzw(translation, torch.from_numpy(rng.standard_normal(4)))


def _draw_modes(rng: np.random.Generator, kind: np.ndarray, true_px: np.ndarray) -> np.ndarray:
    """Places (N, 2, xy) of each landmark's right and wrong mode, pixels; NaN for a mode it has not."""
    anywhere = rng.uniform(0, np.array([WIDTH, HEIGHT]) - 1, (len(kind), 2))
    angle = rng.uniform(0, 2 * np.pi)
    shifted = true_px + rng.uniform(*SHIFT_PX) * np.array([np.cos(angle), np.sin(angle)])
    alike = np.isin(kind, [Kind.REPEATED, Kind.SHIFTED])[:, None]
    wrong = np.where(alike, shifted, anywhere)
    right = np.where(_lost(kind)[:, None], np.nan, true_px)
    return np.stack([right, np.where(kind[:, None] == Kind.RIGHT, np.nan, wrong)], 1)


def _lost(kind: np.ndarray) -> np.ndarray:
    """Mask (N,) of landmarks whose coarse map knows nothing of the truth."""
    return np.isin(kind, [Kind.WRONG, Kind.SHIFTED])


def _coarse_maps(rng: np.random.Generator, stride: int, kind: np.ndarray, modes_px: np.ndarray) -> LossMaps:
    grid = CellGrid(stride, (stride - 1) / 2)
    width, height = WIDTH // stride, HEIGHT // stride
    ceiling = math.log(width * height + 1)
    count = len(kind)
    strong = rng.uniform(*COARSE_HEIGHTS, count)
    right = strong - rng.uniform(*WEAKER, count) * (kind == Kind.WEAKER)
    heights = np.stack([right, strong - WRONG_LOWER * (kind == Kind.WRONG)], 1)
    # a network that tells one of more cells apart gives higher bumps
    heights *= ceiling / math.log((WIDTH // 16) * (HEIGHT // 16) + 1)
    xy = grid.cell_from_pixel(torch.from_numpy(modes_px)) + torch.from_numpy(
        rng.normal(0, COARSE_JITTER, modes_px.shape)
    )
    widths = rng.uniform(*COARSE_WIDTHS, (count, 2))
    columns, rows = (torch.arange(size, dtype=torch.float32).expand(count, size) for size in (width, height))
    logits = bumps(columns, rows, xy.float(), torch.from_numpy(heights).float(), torch.from_numpy(widths).float())
    logits += smooth_noise(torch.from_numpy(rng.standard_normal((count, height, width), dtype=np.float32)))
    logits += (ceiling - logits.flatten(1).logsumexp(1))[:, None, None]
    origin = torch.zeros((count, 2), dtype=torch.long)
    return LossMaps(logits.relu_(), origin, (width, height), grid, ceiling)


def _fine_bumps(rng: np.random.Generator, kind: np.ndarray, modes_px: np.ndarray, true_px: np.ndarray) -> FineBumps:
    """Every coarse mode has a bump in the fine map; maps without a right mode have one near the truth too."""
    grid = CellGrid(FINE_STRIDE, (FINE_STRIDE - 1) / 2)
    lost = _lost(kind)
    stray = true_px + FINE_STRIDE * rng.uniform(-STRAY_CELLS, STRAY_CELLS, true_px.shape)
    first = np.where(lost[:, None], stray, modes_px[:, 0])
    places = np.stack([first, modes_px[:, 1]], 1)
    xy = grid.cell_from_pixel(torch.from_numpy(places)) + torch.from_numpy(rng.normal(0, FINE_JITTER, places.shape))
    heights = rng.uniform(*FINE_HEIGHTS, places.shape[:2]) - WRONG_LOWER * lost[:, None]
    widths = rng.uniform(*FINE_WIDTHS, places.shape[:2])
    offset = rng.integers(0, 1 << 20, true_px.shape)
    image_cells = (WIDTH // FINE_STRIDE, HEIGHT // FINE_STRIDE)
    return FineBumps(
        grid, image_cells, xy, torch.from_numpy(heights), torch.from_numpy(widths), torch.from_numpy(offset)
    )
