"""FPR in the place of the fine stage: hypotheses aligned by the fine features, judged by the same fine maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.errors import ConfigError
from nre_ros.geometry import Camera, Pose
from nre_ros.nre.fine import FineMaps, FineStage, Windows, cut_windows
from nre_ros.nre.fpr import FeatureLevel, align_features
from nre_ros.nre.gnc import smoothed_total
from nre_ros.nre.loss_maps import LossMaps
from nre_ros.nre.msac import Hypotheses


def refine_fpr(
    coarse: LossMaps, xyz_map: Tensor, camera: Camera, ahead: Hypotheses, fine: Sequence[FineMaps], config: NreConfig
) -> tuple[Hypotheses, Windows | None]:
    """Hypotheses (Q, H), best first by their fine maps, and the windows of the best (Q, 1), which tell how sure it is.

    A hypothesis that cannot be aligned stays as it is. Raises ConfigError when ``fine`` has maps, but no features.
    """
    if config.fine_rounds == 0:
        return ahead, None
    aligned = [
        _aligned(each, xyz_map[q], camera, ahead.poses[q], ahead.gains[q] > -torch.inf) for q, each in enumerate(fine)
    ]
    poses = Pose(torch.stack([p.rotation for p in aligned]), torch.stack([p.translation for p in aligned]))
    window = max(config.fine_window >> (config.fine_rounds - 1), 8)
    windows = cut_windows(coarse, xyz_map, camera, poses, fine, window, config.use_re)
    alone = Pose(poses.rotation[:, :, None], poses.translation[:, :, None])
    gains = smoothed_total(windows.maps, windows.xyz_map, camera, alone, config.fine_sigma_min)[:, :, 0]
    refined = ahead.refined(poses, gains)
    order = refined.gains.argsort(dim=1, descending=True, stable=True)
    return refined.take(order), windows.take(order[:, :1])


def _aligned(fine: FineMaps, xyz_map: Tensor, camera: Camera, poses: Pose, real: Tensor) -> Pose:
    """Poses (H,) of one query; those that are not ``real`` (H,) are passed through."""
    if not isinstance(fine, FineStage):
        raise ConfigError("nre.refinement fpr needs the image's features, got loss maps alone; use nre.refinement nre")
    level = FeatureLevel(fine.features, fine.grid, fine.descriptors)
    found = []
    for h, wanted in enumerate(real.tolist()):
        pose = align_features([level], xyz_map, camera, poses[h]) if wanted else None
        found.append(poses[h] if pose is None else pose)
    return Pose(torch.stack([p.rotation for p in found]), torch.stack([p.translation for p in found]))
