"""One image against one map: retrieve, ask the loss maps, judge."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nre_ros.config import LocalizerConfig
from nre_ros.errors import CalibrationError
from nre_ros.features import DenseFeatures, FeatureMap, FeatureNetwork, limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.localization.acceptance import judge
from nre_ros.localization.result import Localization, PointReport, Status
from nre_ros.mapping import Map, check_network
from nre_ros.mapping.retrieval import aggregate, nearest_keyframes
from nre_ros.nre import Estimate, FineStage, Outcome, coarse_loss_maps, estimate_pose


@dataclass(frozen=True)
class Candidates:
    """Landmarks that the retrieved keyframes propose: ``xyz_map`` (N, 3) float64, ``coarse`` (N, Cc) and ``fine``
    (N, Cf) float32 descriptors."""

    xyz_map: Tensor
    coarse: Tensor
    fine: Tensor


class Localizer:
    """Answers where an image was taken. Deterministic: same image, map and configuration, same answer.

    Not for several threads at once. Raises MapError when ``network`` did not make the map.
    """

    def __init__(self, map_: Map, network: FeatureNetwork, config: LocalizerConfig) -> None:
        check_network(map_, network)
        self.map = map_
        self._network = network
        self._config = config
        self._global = map_.arrays.keyframe_global.float().to(network.device)
        self._vocabulary = map_.arrays.vocabulary.to(network.device)

    def warm_up(self, camera: Camera) -> None:
        """Run once on a grey image of the camera's size, so that the first real query is not the slow one."""
        self.localize(np.full((camera.height, camera.width, 3), 128, np.uint8), camera)

    @torch.inference_mode()
    def localize(self, image_rgb: np.ndarray, camera: Camera) -> Localization:
        """Where was ``image_rgb`` (H, W, 3) uint8 taken? No prior is used.

        Raises CalibrationError when the camera is not of the image's size; an image that the map does not explain
        is a result, not an error.
        """
        height, width = image_rgb.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise CalibrationError(
                f"the image is {width}x{height} pixels, the calibration is for {camera.width}x{camera.height}"
            )
        clock = _Stopwatch()
        image, used_camera = limit_size(image_rgb, camera, self._config.max_image_side)
        features = self._network.extract(image)
        clock.lap("network")
        keyframes, _ = nearest_keyframes(
            aggregate(features.context.values, self._vocabulary), self._global, self._config.top_k
        )
        retrieved = tuple(keyframes.tolist())
        clock.lap("retrieval")
        found = self._ask(retrieved, features, used_camera, camera, clock)
        return replace(found, keyframes=retrieved, timings_ms=clock.timings_ms | {"total": clock.since_start_ms()})

    def _ask(
        self, keyframes: tuple[int, ...], features: DenseFeatures, used: Camera, camera: Camera, clock: _Stopwatch
    ) -> Localization:
        candidates = self._candidates(keyframes, features)
        seen = features.coarse
        coarse = coarse_loss_maps(candidates.coarse, seen.values, seen.inverse_temperature, seen.grid)
        clock.lap("loss_maps")
        fine = _fine_stage(candidates, features)
        estimate = estimate_pose(candidates.xyz_map, used, coarse, fine, self._config.nre, clock.lap)
        return self._answer(estimate, candidates, camera)

    def _candidates(self, keyframes: tuple[int, ...], features: DenseFeatures) -> Candidates:
        """Landmarks of the keyframes, best keyframe's first; each with the mean of its descriptors in them."""
        arrays = self.map.arrays
        rows = np.concatenate([np.r_[self.map.observations_of(k)] for k in keyframes])
        landmark = arrays.landmark.numpy()[rows]
        chosen = _in_turn(landmark, [len(np.r_[self.map.observations_of(k)]) for k in keyframes])
        chosen = chosen[: self._config.nre.max_points]
        slot = np.full(self.map.landmark_count, -1)
        slot[chosen] = np.arange(len(chosen))
        used = slot[landmark] >= 0
        observation, target = torch.from_numpy(rows[used]), torch.from_numpy(slot[landmark[used]])
        device = self._network.device
        times = torch.bincount(target, minlength=len(chosen))[:, None]

        def mean(values: Tensor, level: FeatureMap) -> Tensor:
            total = torch.zeros((len(chosen), values.shape[1])).index_add_(0, target, values[observation].float())
            return level.mixed(total / times).to(device)

        xyz_map = arrays.xyz_map[torch.from_numpy(chosen)].to(device)
        return Candidates(xyz_map, mean(arrays.coarse, features.coarse), mean(arrays.fine, features.fine))

    def _answer(self, estimate: Estimate, candidates: Candidates, camera: Camera) -> Localization:
        if estimate.outcome is not Outcome.OK or estimate.poses is None:
            return Localization(Status.NO_POSE, estimate.outcome.value)
        cam_from_map = estimate.poses.to("cpu")
        verdict = judge(estimate, self.map.median_depth, self._config.accept)
        return Localization(
            Status.ACCEPTED if verdict.accepted else Status.REJECTED,
            verdict.reason,
            score=verdict.score,
            map_from_cam=cam_from_map[0].inverse(),
            # exp(x) @ cam_from_map is map_from_cam @ exp(-x): the same covariance
            covariance=None if estimate.covariance is None else estimate.covariance.cpu(),
            hypotheses=tuple(cam_from_map[i].inverse() for i in range(1, len(cam_from_map.rotation))),
            points=_report(estimate, candidates, camera, cam_from_map[0]),
        )


def _in_turn(landmark: np.ndarray, counts: list[int]) -> np.ndarray:
    """Distinct landmarks, the first of every keyframe, then the second of every keyframe, and so on: no keyframe
    crowds out the others, should the first be the wrong one."""
    rank = np.concatenate([np.arange(count) for count in counts])
    ordered = landmark[np.argsort(rank, kind="stable")]
    _, first = np.unique(ordered, return_index=True)
    return ordered[np.sort(first)]


def _fine_stage(candidates: Candidates, features: DenseFeatures) -> FineStage:
    fine = features.fine
    return FineStage(candidates.fine, fine.values, fine.inverse_temperature, fine.grid)


def _report(estimate: Estimate, candidates: Candidates, camera: Camera, cam_from_map: Pose) -> PointReport:
    assert estimate.coarse_share is not None
    xyz_map = candidates.xyz_map.cpu()
    uv_px, visible = camera.project(cam_from_map.transform(xyz_map))
    uv_px = torch.where(visible[:, None], uv_px, torch.nan)
    loss = 1 - estimate.coarse_share.cpu()
    return PointReport(xyz_map.float().numpy(), uv_px.float().numpy(), loss.float().numpy())


class _Stopwatch:
    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.timings_ms[stage] = 1e3 * (now - self._last)
        self._last = now

    def since_start_ms(self) -> float:
        return 1e3 * (time.perf_counter() - self._start)
