"""Where one frame lies in another, from poses of the same cameras in both: SE(3) or Sim(3), robustly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nre_ros.geometry.pose import Pose, pose_error

SAMPLES = 2000
"""Most single poses or pairs of poses that a start is taken from."""
ROUNDS = 10
"""Most times the inliers are chosen anew."""


@dataclass(frozen=True)
class Similarity:
    """``b_from_a``: a point x of frame a lies at ``scale * rotation @ x + translation`` in b.

    ``rotation`` (..., 3, 3), ``translation`` (..., 3) in b's unit, ``scale`` (...): units of b per unit of a. All
    float64. Neighbours cancel: ``c_from_a = c_from_b @ b_from_a``.
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    @staticmethod
    def identity() -> Similarity:
        rigid = Pose.identity()
        return Similarity(torch.ones((), dtype=torch.float64), rigid.rotation, rigid.translation)

    def transform(self, xyz: Tensor) -> Tensor:
        """Move points (..., N, 3) from frame a to frame b."""
        return self.scale[..., None, None] * (xyz @ self.rotation.mT) + self.translation[..., None, :]

    def move(self, a_from_cam: Pose) -> Pose:
        """``b_from_cam`` of cameras (..., N): turned and moved, never scaled themselves."""
        return Pose(self.rotation[..., None, :, :] @ a_from_cam.rotation, self.transform(a_from_cam.translation))

    def inverse(self) -> Similarity:
        scale, rotation = 1 / self.scale, self.rotation.mT
        return Similarity(scale, rotation, -scale[..., None] * (rotation @ self.translation[..., None])[..., 0])

    def __matmul__(self, other: Similarity) -> Similarity:
        moved = self.transform(other.translation[..., None, :])[..., 0, :]
        return Similarity(self.scale * other.scale, self.rotation @ other.rotation, moved)

    def __getitem__(self, index: int) -> Similarity:
        return Similarity(self.scale[index], self.rotation[index], self.translation[index])


@dataclass(frozen=True)
class Alignment:
    """``b_from_a`` with what it leaves over: ``distance`` (N,) in b's unit and ``angle_deg`` (N,) of each pose, and the
    mask ``inlier`` (N,) of those within the limits. ``scale_deviation`` is the standard deviation of the scale, as a
    share of it: large when the cameras hardly moved, zero when the scale was given."""

    b_from_a: Similarity
    distance: Tensor
    angle_deg: Tensor
    inlier: Tensor
    scale_deviation: float


def fit_points(xyz_a: Tensor, xyz_b: Tensor, *, with_scale: bool) -> Similarity:
    """Least-squares ``b_from_a`` of matched points (N, 3), N >= 3 and not on a line (Umeyama, PAMI 1991)."""
    mean_a, mean_b = xyz_a.mean(0), xyz_b.mean(0)
    a, b = xyz_a - mean_a, xyz_b - mean_b
    rotation = _nearest_rotation(b.T @ a)
    scale = _scale(a @ rotation.T, b) if with_scale else torch.ones((), dtype=xyz_a.dtype)
    return Similarity(scale, rotation, mean_b - scale * (rotation @ mean_a))


def fit_poses(a_from_cam: Pose, b_from_cam: Pose, lever: float, *, with_scale: bool) -> Similarity:
    """Least-squares ``b_from_a`` of the same cameras (N) in both frames: N >= 1, or 2 positions with scale.

    ``lever`` (b's unit) is the distance whose share in position weighs as much as a radian in rotation: about the
    depth of what the cameras look at. Orientations keep cameras on a line, or at one place, from turning.
    """
    mean_a, mean_b = a_from_cam.translation.mean(0), b_from_cam.translation.mean(0)
    a, b = a_from_cam.translation - mean_a, b_from_cam.translation - mean_b
    turns = (b_from_cam.rotation @ a_from_cam.rotation.mT).sum(0)
    scale = torch.ones((), dtype=a.dtype)
    rotation = _nearest_rotation(turns)
    for _ in range(3 if with_scale else 1):
        if with_scale:
            scale = _scale(a @ rotation.T, b)
        rotation = _nearest_rotation(turns + scale / lever**2 * (b.T @ a))
    return Similarity(scale, rotation, mean_b - scale * (rotation @ mean_a))


def align_poses(
    a_from_cam: Pose, b_from_cam: Pose, *, max_distance: float, max_angle_deg: float, with_scale: bool
) -> Alignment:
    """``b_from_a`` that most of the same cameras (N) in both frames agree with, some of them being wrong.

    Agree means within ``max_distance`` (b's unit) and ``max_angle_deg``. Starts from every camera, or with scale from
    pairs of them, and refits to those that agree until these stay the same. ``N`` at least 1, or 2 with scale.
    """
    count = len(a_from_cam.translation)
    lever = max_distance / torch.deg2rad(torch.tensor(max_angle_deg)).item()
    starts = _from_pairs(a_from_cam, b_from_cam) if with_scale else _from_single(a_from_cam, b_from_cam)
    moved = starts.move(Pose(a_from_cam.rotation[None], a_from_cam.translation[None]))
    angle, distance = pose_error(moved, b_from_cam)
    cost = ((angle / max_angle_deg) ** 2 + (distance / max_distance) ** 2).nan_to_num(nan=torch.inf).clamp(max=2)
    best = starts[int(cost.sum(1).argmin())]
    inlier = torch.zeros(count, dtype=torch.bool)
    for _ in range(ROUNDS):
        angle, distance = pose_error(best.move(a_from_cam), b_from_cam)
        agreeing = (angle <= max_angle_deg) & (distance <= max_distance)
        if torch.equal(agreeing, inlier) or int(agreeing.sum()) < (2 if with_scale else 1):
            break
        inlier = agreeing
        best = fit_poses(a_from_cam[inlier], b_from_cam[inlier], lever, with_scale=with_scale)
    angle, distance = pose_error(best.move(a_from_cam), b_from_cam)
    inlier = (angle <= max_angle_deg) & (distance <= max_distance)
    position = best.move(a_from_cam).translation
    deviation = _scale_deviation(position[inlier], distance[inlier]) if with_scale else 0.0
    return Alignment(best, distance, angle, inlier, deviation)


def _from_single(a_from_cam: Pose, b_from_cam: Pose) -> Similarity:
    """A start (S,) of scale 1 from each camera."""
    b_from_a = b_from_cam @ a_from_cam.inverse()
    ones = torch.ones(len(b_from_a.translation), dtype=torch.float64)
    return Similarity(ones, b_from_a.rotation, b_from_a.translation)


def _from_pairs(a_from_cam: Pose, b_from_cam: Pose) -> Similarity:
    """A start (S,) from each of :data:`SAMPLES` pairs of cameras: the first's turn, the scale of their distance."""
    first, second = torch.triu_indices(len(a_from_cam.translation), len(a_from_cam.translation), 1)
    if len(first) > SAMPLES:
        some = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))[:SAMPLES]
        first, second = first[some], second[some]
    rotation = b_from_cam.rotation[first] @ a_from_cam.rotation[first].mT
    apart_a = (a_from_cam.translation[second] - a_from_cam.translation[first]).norm(dim=-1)
    apart_b = (b_from_cam.translation[second] - b_from_cam.translation[first]).norm(dim=-1)
    scale = apart_b / apart_a.clamp_min(1e-300)
    turned = (rotation @ a_from_cam.translation[first][..., None])[..., 0]
    return Similarity(scale, rotation, b_from_cam.translation[first] - scale[:, None] * turned)


def _scale(turned_a: Tensor, b: Tensor) -> Tensor:
    """Units of b per unit of a, from centred points (N, 3) that differ by nothing else."""
    return ((turned_a * b).sum() / turned_a.square().sum().clamp_min(1e-300)).clamp_min(1e-12)


def _nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation R (3, 3) that makes trace(R^T matrix) largest."""
    u, _, vt = torch.linalg.svd(matrix)
    flip = torch.ones(3, dtype=matrix.dtype)
    flip[2] = torch.det(u @ vt).sign()
    return (u * flip) @ vt


def _scale_deviation(positions: Tensor, distance: Tensor) -> float:
    """Of a scale fitted to positions (N, 3) that are off by ``distance`` (N,)."""
    if len(positions) < 3:
        return float("inf")
    spread = (positions - positions.mean(0)).square().sum()
    return float((distance.square().mean() / 3 / spread.clamp_min(1e-300)).sqrt())
