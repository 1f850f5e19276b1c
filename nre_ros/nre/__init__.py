"""Neural Reprojection Error (Germain, Lepetit, Bourmaud, CVPR 2021): dense loss maps in, pose out."""

from nre_ros.nre.estimator import Estimate, Outcome, estimate_pose, estimate_poses
from nre_ros.nre.fine import FineMaps, FineStage
from nre_ros.nre.loss_maps import LossMaps, coarse_loss_maps, fine_loss_maps

__all__ = [
    "Estimate",
    "FineMaps",
    "FineStage",
    "LossMaps",
    "Outcome",
    "coarse_loss_maps",
    "estimate_pose",
    "estimate_poses",
    "fine_loss_maps",
]
