"""One image against one map: retrieve, ask the loss maps, judge."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nre_ros.config import LocalizerConfig
from nre_ros.errors import CalibrationError
from nre_ros.features import DenseFeatures, FeatureNetwork, limit_size
from nre_ros.geometry import Camera, Pose
from nre_ros.localization.acceptance import judge
from nre_ros.localization.calibration import load_calibration
from nre_ros.localization.candidates import Candidates, landmarks_to_ask
from nre_ros.localization.evidence import Evidence, evidence
from nre_ros.localization.neighbourhood import (
    keyframes_near,
    keyframes_within,
    landmarks_in_view,
    projected_sigma_px,
)
from nre_ros.localization.prior import Prior
from nre_ros.localization.result import Localization, PointReport, Search, Status
from nre_ros.mapping import Map, check_network
from nre_ros.mapping.keyframe_search import KeyframeSearch
from nre_ros.mapping.retrieval import aggregate
from nre_ros.nre import Estimate, Outcome, estimate_pose

NO_KEYFRAME = "the map has no keyframe where the pose is expected"
SEARCHED = 2
"""One of so many landmarks of a whole answer, the clearest, serves the search."""
MIN_SEARCHED = 16
FEWEST_IN_VIEW = 20
"""Landmarks that must be expected in view for a pose to be refined on them."""
CLOSE_BEHIND = 0.9
"""A second hypothesis with more than this share of the first one's gain may yet lead, or be the same."""
SURE_CELLS = 1.5
"""Root mean square uncertainty of the landmarks' expected projections (coarse cells) up to which the expected pose is
the only start: GNC on the coarse maps finds back from there (measured: 40 of 40)."""
SURE_LEVELS = 1
"""Levels of the coarse maps climbed then; the fine windows find on from there. Not none: of 126 expectations, 105 of
them wrong by 7 to 50 of their deviations, 18 led to an accepted pose 1 deg or 0.1 m off (with one level 7, all 5)."""
REACH_CELLS = 6.0
"""And up to which tracking is tried at all, from :data:`DRAWN` starts (measured at 4 and at 8: 78 of 80)."""
DRAWN = 64
LEAST_BOUND_RAD = 0.02
"""Bounds narrower than this, and this share of the depth, would hold the map's own errors against a pose."""


@dataclass(frozen=True)
class View:
    """What the network sees in an image: ``features`` of the image as ``used``, perhaps reduced; ``camera`` is that of
    the image as it was given. ``clock`` times the stages from the first on."""

    features: DenseFeatures
    used: Camera
    camera: Camera
    clock: Stopwatch


class Localizer:
    """Answers where an image was taken. Deterministic: same image, map and configuration, same answer.

    :meth:`localize` is the whole of it. Who knows something of the pose asks in two steps, :meth:`see` and then one
    of the searches, and may search the same view again. Not for several threads at once. Raises MapError when
    ``network`` did not make the map, ConfigError when ``accept.calibration`` cannot be read.
    """

    def __init__(self, map_: Map, network: FeatureNetwork, config: LocalizerConfig) -> None:
        check_network(map_, network)
        self.map = map_
        self._network = network
        self._config = config
        self._calibration = load_calibration(config.accept.calibration)
        map_.check_file()
        self._keyframes = KeyframeSearch(_within(config.device_memory_mb, map_.arrays.keyframe_global, network.device))
        self._vocabulary = map_.vocabulary.to(network.device)

    def warm_up(self, camera: Camera) -> None:
        """Run once on a grey image of the camera's size, so that the first real query is not the slow one."""
        self.localize(np.full((camera.height, camera.width, 3), 128, np.uint8), camera)

    def localize(self, image_rgb: np.ndarray, camera: Camera) -> Localization:
        """Where was ``image_rgb`` (H, W, 3) uint8 taken? No prior is used.

        Raises CalibrationError when the camera is not of the image's size; an image that the map does not explain
        is a result, not an error.
        """
        return self.search(self.see(image_rgb, camera))

    @torch.inference_mode()
    def see(self, image_rgb: np.ndarray, camera: Camera) -> View:
        """Run the network; raises as :meth:`localize`."""
        height, width = image_rgb.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise CalibrationError(
                f"the image is {width}x{height} pixels, the calibration is for {camera.width}x{camera.height}"
            )
        clock = Stopwatch()
        image, used = limit_size(image_rgb, camera, self._config.max_image_side)
        features = self._network.extract(image)
        clock.lap("network")
        return View(features, used, camera, clock)

    @torch.inference_mode()
    def search(self, view: View) -> Localization:
        """Anywhere in the map."""
        self.map.check_file()
        return self._ask(view, *self.propose(view))

    @torch.inference_mode()
    def propose(self, view: View) -> tuple[tuple[int, ...], Tensor]:
        """Keyframes retrieved for the view, best first, and the landmarks (N,) that are to be asked about."""
        keyframes, similarity = self._retrieve(view)
        return keyframes, self._landmarks_of(view, keyframes, similarity)

    def propose_around(self, view: View, map_from_cam: Pose, most: int | None = None) -> Tensor:
        """The landmarks (N,) that a pose found for the view is refined on: all that it has in view, up to ``most``
        (``nre.max_points``). With fewer than :data:`FEWEST_IN_VIEW` there is nothing to refine it on."""
        keyframes = keyframes_near(self.map, map_from_cam)
        most = self._config.nre.max_points if most is None else most
        return landmarks_in_view(self.map, keyframes, map_from_cam, view.used, most)

    @torch.inference_mode()
    def ask(self, view: View, landmarks: Tensor) -> Evidence:
        """What the view says of ``landmarks`` (N,)."""
        return evidence(self.map, landmarks, view.features, self._network.device)

    def with_nre(self, **changes: Any) -> Localizer:
        """The same, with other values of ``nre.*``."""
        nre = replace(self._config.nre, **changes)
        other = copy.copy(self)
        other._config = replace(self._config, nre=nre)
        return other

    @torch.inference_mode()
    def search_within(self, view: View, prior: Prior) -> Localization:
        """Only within the prior's bounds; what else in the map looks alike does not count."""
        self.map.check_file()
        allowed = keyframes_within(self.map, prior)
        if not bool(allowed.any()):
            return self._done(view, Localization(Status.NO_POSE, NO_KEYFRAME, search=Search.WITHIN))
        keyframes, similarity = self._retrieve(view, allowed)
        found = self._ask(view, keyframes, self._landmarks_of(view, keyframes, similarity), within=prior)
        return replace(found, search=Search.WITHIN)

    @torch.inference_mode()
    def track(self, view: View, prior: Prior) -> Localization:
        """From the expected pose on: no retrieval, no sampling. The answer must lie within the prior's bounds."""
        self.map.check_file()
        expected = prior.map_from_cam
        keyframes = tuple(keyframes_near(self.map, expected))
        chosen = landmarks_in_view(self.map, keyframes, expected, view.used, self._config.track_points)
        if len(chosen) < FEWEST_IN_VIEW:
            reason = f"only {len(chosen)} landmarks lie in view of the expected pose"
            return self._done(view, Localization(Status.NO_POSE, reason, search=Search.TRACK))
        uncertain = projected_sigma_px(prior, self.map.arrays.xyz_map[chosen], view.used)
        uncertain /= view.features.coarse.grid.stride
        view.clock.lap("neighbourhood")
        if uncertain > REACH_CELLS:
            reason = "where the landmarks should appear is too uncertain to be tracked"
            return self._done(view, Localization(Status.NO_POSE, reason, search=Search.TRACK))
        starts = start_poses(prior, 1 if uncertain <= SURE_CELLS else DRAWN)
        coarse_levels = SURE_LEVELS if uncertain <= SURE_CELLS else None
        bounds = prior.at_least(LEAST_BOUND_RAD, LEAST_BOUND_RAD * self.map.median_depth)
        found = self._ask(view, keyframes, chosen, bounds, starts.to(self._network.device), coarse_levels)
        return replace(found, search=Search.TRACK)

    def _retrieve(self, view: View, allowed: Tensor | None = None) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Keyframes and how similar they are to the view, best first."""
        asked = aggregate(view.features.context.values, self._vocabulary)
        keyframes, similarity = self._keyframes.nearest(asked, self._config.top_k, allowed)
        view.clock.lap("retrieval")
        return tuple(keyframes.tolist()), tuple(similarity.tolist())

    def _landmarks_of(self, view: View, keyframes: tuple[int, ...], similarity: tuple[float, ...]) -> Tensor:
        most, device = max(self._config.nre.max_points // SEARCHED, MIN_SEARCHED), self._network.device
        chosen = landmarks_to_ask(self.map, keyframes, similarity, view.features.coarse, most, device)
        view.clock.lap("landmarks")
        return chosen

    def _ask(
        self,
        view: View,
        keyframes: tuple[int, ...],
        chosen: Tensor,
        within: Prior | None = None,
        starts: Pose | None = None,
        coarse_levels: int | None = None,
    ) -> Localization:
        """What the loss maps of the landmarks ``chosen`` (N,) say; unless starts are known, of those in view then."""
        found, asked = self._estimate(view, chosen, starts, coarse_levels)
        if within is not None:
            inside = _inside(found, within)
            if starts is None and inside and inside[0] != 0:
                best = found.poses[inside] if found.poses else None  # the best there, refined to the end
                found, asked = self._estimate(view, chosen, best)
                inside = _inside(found, within)
            found = _only(found, inside)
        if starts is None:
            found, asked = self._settled(view, found, asked)
        answer = self._answer(found, asked, view.camera)
        return self._done(view, replace(answer, keyframes=keyframes))

    def _estimate(
        self, view: View, chosen: Tensor, starts: Pose | None, coarse_levels: int | None = None
    ) -> tuple[Estimate, Candidates]:
        asked = self.ask(view, chosen)
        view.clock.lap("loss_maps")
        nre, lap, xyz_map = self._config.nre, view.clock.lap, asked.candidates.xyz_map
        found = estimate_pose(xyz_map, view.used, asked.coarse, asked.fine, nre, lap, starts, coarse_levels)
        return found, asked.candidates

    def _settled(self, view: View, found: Estimate, asked: Candidates) -> tuple[Estimate, Candidates]:
        """The best pose refined anew on all landmarks in its view, spread over the image, in place of those that made
        the search easy; these often lie close together. A second hypothesis close behind is refined with it, on what
        either has in view: it may come to the same pose, or lead. The others stay as they are."""
        if found.poses is None or found.gains is None or found.rivalry is None or not len(found.rivalry):
            return found, asked
        count = 2 if len(found.rivalry) > 1 and float(found.rivalry[1]) > CLOSE_BEHIND else 1
        most = self._config.nre.max_points // count
        around = [self.propose_around(view, found.poses[i].to("cpu").inverse(), most) for i in range(count)]
        chosen = torch.unique(torch.cat(around))
        view.clock.lap("landmarks")
        if len(chosen) < FEWEST_IN_VIEW:
            return found, asked
        final, in_view = self._estimate(view, chosen, found.poses[list(range(count))])
        if final.poses is None or final.gains is None or final.rivalry is None:
            return found, asked
        rotation = torch.cat([final.poses.rotation, found.poses.rotation[count:]])
        translation = torch.cat([final.poses.translation, found.poses.translation[count:]])
        gains = torch.cat([final.gains, found.gains[count:]])
        rivalry = torch.cat([final.rivalry, found.rivalry[count:]])
        return replace(final, poses=Pose(rotation, translation), gains=gains, rivalry=rivalry), in_view

    def _done(self, view: View, answer: Localization) -> Localization:
        return replace(answer, timings_ms=view.clock.timings_ms | {"total": view.clock.since_start_ms()})

    def _answer(self, estimate: Estimate, candidates: Candidates, camera: Camera) -> Localization:
        if estimate.outcome is not Outcome.OK or estimate.poses is None or estimate.rivalry is None:
            return Localization(Status.NO_POSE, estimate.outcome.value)
        if not len(estimate.rivalry):
            return Localization(Status.NO_POSE, "no pose lies where it is expected")
        cam_from_map = estimate.poses.to("cpu")
        rate = self._config.accept.false_accept_rate
        depth = min(self.map.median_depth, _view_depth(candidates, cam_from_map[0], estimate.in_view))
        verdict = judge(estimate, depth, self._calibration, rate)
        return Localization(
            Status.ACCEPTED if verdict.accepted else Status.REJECTED,
            verdict.reason,
            score=verdict.score,
            support=verdict.support,
            map_from_cam=cam_from_map[0].inverse(),
            # exp(x) @ cam_from_map is map_from_cam @ exp(-x): the same covariance
            covariance=None if estimate.covariance is None else estimate.covariance.cpu(),
            hypotheses=tuple(cam_from_map[i].inverse() for i in range(1, len(cam_from_map.rotation))),
            rivalry=tuple(estimate.rivalry[1:].tolist()),
            ambiguous=verdict.ambiguous,
            points=_report(estimate, candidates, camera, cam_from_map[0]),
        )


def start_poses(prior: Prior, count: int) -> Pose:
    """``cam_from_map`` (count,) to start from: the expected pose and others drawn from the prior, always the same."""
    drawn = torch.randn((count, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn[0] = 0
    twists = drawn @ torch.linalg.cholesky(prior.covariance).mT
    return (prior.map_from_cam @ Pose.exp(twists)).inverse()


def _inside(estimate: Estimate, within: Prior) -> list[int]:
    """Hypotheses within the prior's bounds, best first."""
    if estimate.poses is None:
        return []
    map_from_cam = estimate.poses.to("cpu").inverse()
    return [i for i in range(len(map_from_cam.rotation)) if within.holds(map_from_cam[i])]


def _only(estimate: Estimate, index: list[int]) -> Estimate:
    """Some of the hypotheses; none when the first, which all figures are of, is not among them."""
    if estimate.poses is None or estimate.gains is None or estimate.rivalry is None:
        return estimate
    index = index if index[:1] == [0] else []
    return replace(estimate, poses=estimate.poses[index], gains=estimate.gains[index], rivalry=estimate.rivalry[index])


def _view_depth(candidates: Candidates, cam_from_map: Pose, in_view: Tensor | None) -> float:
    """Median depth (map unit) of the landmarks in view; infinite where there are none."""
    depth = cam_from_map.transform(candidates.xyz_map.cpu())[..., 2]
    depth = depth if in_view is None else depth[in_view.cpu()]
    return float(depth.median()) if len(depth) else math.inf


def _within(budget_mb: int, stored: Tensor, device: torch.device) -> Tensor:
    """``stored`` on the device if it fits into the budget; else where it is, in the map's file."""
    fits = stored.numel() * stored.element_size() <= budget_mb * 2**20
    return stored.to(device) if fits else stored


def _report(estimate: Estimate, candidates: Candidates, camera: Camera, cam_from_map: Pose) -> PointReport:
    assert estimate.coarse_share is not None
    xyz_map = candidates.xyz_map.cpu()
    uv_px, visible = camera.project(cam_from_map.transform(xyz_map))
    uv_px = torch.where(visible[:, None], uv_px, torch.nan)
    loss = 1 - estimate.coarse_share.cpu()
    return PointReport(xyz_map.float().numpy(), uv_px.float().numpy(), loss.float().numpy())


class Stopwatch:
    """Time of each stage, those of a second search added to those of the first."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def since_start_ms(self) -> float:
        return 1e3 * (time.perf_counter() - self._start)
