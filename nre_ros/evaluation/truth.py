"""Whether the true poses can serve as such, and their alignment with the map where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from nre_ros.errors import RecordingError
from nre_ros.evaluation.metrics import Answer
from nre_ros.geometry import Pose
from nre_ros.geometry.alignment import Similarity, align_poses

ALIGNMENTS = ("se3", "sim3")
FEWEST = 3
"""Accepted answers that must agree on an alignment, and of all accepted ones this share."""
LEAST_SHARE = 0.5
AGREE_DEG, AGREE_SHARE_OF_DEPTH = 5.0, 0.05
MOST_SCALE_DEVIATION = 0.05


@dataclass(frozen=True)
class AlignedTruth:
    """Answers whose truth was moved into the map by ``map_from_truth``, fitted to ``agreeing`` of ``accepted``."""

    answers: list[Answer]
    map_from_truth: Similarity
    agreeing: int
    accepted: int

    def as_dict(self) -> dict[str, object]:
        pose = Pose(self.map_from_truth.rotation, self.map_from_truth.translation)
        return {
            "scale": float(self.map_from_truth.scale),
            "xyz": pose.translation.tolist(),
            "quat_xyzw": pose.quat_xyzw().tolist(),
            "agreeing": self.agreeing,
            "accepted": self.accepted,
        }


def require_moving_truth(answers: Sequence[Answer]) -> None:
    """Raises RecordingError when three or more queries all have exactly the same true pose: no camera measures so."""
    truths = [answer.truth.matrix() for answer in answers if answer.truth is not None]
    if len(truths) >= FEWEST and float((torch.stack(truths) - truths[0]).abs().max()) < 1e-9:
        xyz = ", ".join(f"{v:.3f}" for v in truths[0][:3, 3].tolist())
        raise RecordingError(
            f"the ground truth is a constant: all {len(truths)} queries have exactly the pose at ({xyz}); is the "
            "topic, the frame or the file that of the moving camera?"
        )


def align_truth(answers: Sequence[Answer], mode: str, median_depth: float) -> AlignedTruth:
    """Fit the frame of the truth to the accepted answers that most agree on it, by a rigid motion ("se3") or with a
    scale ("sim3"), and move every truth there. Figures after that say how the answers fit among themselves: a shift
    of the whole map is forgiven.

    Raises RecordingError when too few answers agree, or the scale is not fixed.
    """
    given = [a for a in answers if a.accepted and a.truth is not None and a.map_from_cam is not None]
    if len(given) < FEWEST:
        raise RecordingError(
            f"--align {mode} needs {FEWEST} accepted answers with a truth, found {len(given)} of {len(answers)}; is "
            "this the map of the place?"
        )
    truths = Pose.from_matrix(torch.stack([a.truth.matrix() for a in given if a.truth is not None]))
    poses = Pose.from_matrix(torch.stack([a.map_from_cam.matrix() for a in given if a.map_from_cam is not None]))
    near = AGREE_SHARE_OF_DEPTH * median_depth
    fit = align_poses(truths, poses, max_distance=near, max_angle_deg=AGREE_DEG, with_scale=mode == "sim3")
    agreeing = int(fit.inlier.sum())
    if agreeing < max(FEWEST, LEAST_SHARE * len(given)):
        raise RecordingError(
            f"only {agreeing} of {len(given)} accepted answers agree on an alignment with the ground truth (within "
            f"{near:.3g} map units and {AGREE_DEG:g} deg); is it of the camera's optical frame, on the same clock"
            f"{', and of the same scale (else --align sim3)' if mode == 'se3' else ''}?"
        )
    if fit.scale_deviation > MOST_SCALE_DEVIATION:
        raise RecordingError(
            f"the scale between map and ground truth is known to {fit.scale_deviation:.0%} only, as the camera hardly "
            "moved; use --align se3"
        )
    return AlignedTruth([_moved(a, fit.b_from_a) for a in answers], fit.b_from_a, agreeing, len(given))


def _moved(answer: Answer, map_from_truth: Similarity) -> Answer:
    if answer.truth is None:
        return answer
    batch = Pose(answer.truth.rotation[None], answer.truth.translation[None])
    return replace(answer, truth=map_from_truth.move(batch)[0])
