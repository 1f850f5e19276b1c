"""How exactly the estimator finds poses by a network's descriptors, on images that it was not trained on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.config import NreConfig
from nre_ros.features.compact import CompactNet
from nre_ros.features.network import CompactFeatures
from nre_ros.geometry import pose_error
from nre_ros.nre import FineStage, coarse_loss_maps, estimate_pose
from nre_ros.training.pose_queries import PoseQuery


@dataclass(frozen=True)
class PoseScore:
    """Of ``poses`` queries: median rotation error, median distance as a share of the depth, and the shares of poses
    within 1 degree and 1 % of the depth, and within 5 and 5 %. A query without a pose is infinitely far off."""

    poses: int
    rotation_deg: float
    position: float
    within_1: float
    within_5: float

    def __str__(self) -> str:
        return (
            f"median {self.rotation_deg:.3f} deg and {100 * self.position:.2f} % of the depth off, "
            f"{100 * self.within_1:.0f} % within 1 deg and 1 %, {100 * self.within_5:.0f} % within 5, "
            f"of {self.poses} poses"
        )


@torch.inference_mode()
def validate_poses(net: CompactNet, sets: Mapping[str, Sequence[PoseQuery]]) -> dict[str, PoseScore]:
    """Scores of a network, which stays as it is, by the name of the set; empty sets are left out."""
    if not any(sets.values()):
        return {}
    features = CompactFeatures(copy.deepcopy(net), "", next(net.parameters()).device)
    return {name: score([pose_off(features, q) for q in queries]) for name, queries in sets.items() if queries}


def pose_off(network: CompactFeatures, query: PoseQuery) -> tuple[float, float]:
    """Angle (degrees) and distance (share of the depth) of the estimated pose from the true one."""
    known, seen = network.extract(query.reference_rgb), network.extract(query.query_rgb)
    uv_px, xyz = query.uv_px.to(network.device), query.xyz.to(network.device)
    coarse, fine = seen.coarse, seen.fine
    maps = coarse_loss_maps(known.coarse.sample(uv_px), coarse.values, coarse.inverse_temperature, coarse.grid)
    stage = FineStage(known.fine.sample(uv_px), fine.values, fine.inverse_temperature, fine.grid)
    found = estimate_pose(xyz, query.camera, maps, stage, NreConfig())
    if found.poses is None:
        return float("inf"), float("inf")
    angle, distance = pose_error(found.poses[0].to("cpu").inverse(), query.cam_from_scene.inverse())
    return float(angle), float(distance) / query.depth


def score(off: Sequence[tuple[float, float]]) -> PoseScore:
    """Of errors as :func:`pose_off` gives them."""
    angle, distance = np.array(off).T
    within = [float(np.mean((angle <= degrees) & (distance <= degrees / 100))) for degrees in (1, 5)]
    return PoseScore(len(off), float(np.median(angle)), float(np.median(distance)), *within)
