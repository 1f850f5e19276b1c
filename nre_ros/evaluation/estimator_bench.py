"""Our estimator and its rivals on the same loss maps, and the figures that compare them.

Every method answers twice: from the coarse maps, and from fine windows around our coarse pose. Ours goes through both
stages in one call; a rival takes the argmaxes of either. A rival is given the best of five thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nre_ros.config import NreConfig
from nre_ros.evaluation.estimator_cases import Case, CaseSpec, Kind, draw_case
from nre_ros.evaluation.estimator_figures import Attempt, Figures, Nees, figures_of, judged, nees_of, shares_worse
from nre_ros.evaluation.rivals import Matches, Rival, best_cells
from nre_ros.geometry import CellGrid
from nre_ros.nre import Estimate, LossMaps, estimate_pose

THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 4.0)
"""Of rivals, in cells of the stage's maps."""
CHOOSING_SEEDS = 10
"""On so many of a case's first seeds a rival runs at all thresholds; on the others at the best, by median rotation."""


@dataclass(frozen=True)
class CaseFigures:
    """A case: ``coarse`` and ``fine`` figures by method ("nre", "re", rivals' names).

    The time of a rival's fine stage holds its coarse stage, as ours does; ``windows_ms`` of ours is spent on making
    the synthetic fine maps. ``worse_rotation`` and ``worse_position``: share of the seeds where our fine pose is
    further off than the coarse one.
    """

    case: str
    points: int
    seeds: int
    coarse: Mapping[str, Figures]
    fine: Mapping[str, Figures]
    windows_ms: float
    worse_rotation: float
    worse_position: float


def compare(
    spec: CaseSpec,
    seeds: int,
    config: NreConfig,
    rivals: Mapping[str, Rival],
    tick: Callable[[], object] = lambda: None,
) -> CaseFigures:
    """Draw ``seeds`` cases and run everybody on them; ``tick`` is called after each."""
    ours: dict[str, list[Attempt]] = {"coarse": [], "fine": []}
    re: dict[str, list[Attempt]] = {"coarse": [], "fine": []}
    theirs = {stage: {name: RivalTrials(rival) for name, rival in rivals.items()} for stage in ours}
    windows_ms = []
    one_hot = replace(config, use_re=True)
    for seed in range(seeds):
        case = draw_case(spec, seed)
        fine = TimedFine(case)
        start = estimate(case, None, config, ours["coarse"])
        estimate(case, fine, config, ours["fine"])
        windows_ms.append(fine.spent_ms)
        estimate(case, None, one_hot, re["coarse"])
        estimate(case, TimedFine(case), one_hot, re["fine"])
        matches = {
            "coarse": (best_cells(case.xyz_map, case.coarse, case.camera), case.coarse.grid.stride),
            "fine": (_fine_matches(case, start, config.fine_window), case.fine.grid.stride),
        }
        for stage, trials in theirs.items():
            for rival in trials.values():
                rival.run(case, *matches[stage])
        tick()
    figures = {
        stage: {"nre": figures_of(ours[stage]), "re": figures_of(re[stage])}
        | {name: rival.figures() for name, rival in theirs[stage].items()}
        for stage in ours
    }
    for name in rivals:
        both = figures["fine"][name].ms + figures["coarse"][name].ms
        figures["fine"][name] = replace(figures["fine"][name], ms=both)
    return CaseFigures(
        spec.name,
        spec.points,
        seeds,
        figures["coarse"],
        figures["fine"],
        float(np.median(windows_ms)),
        *shares_worse(ours["coarse"], ours["fine"]),
    )


def check_covariance(
    spec: CaseSpec, seeds: int, config: NreConfig, tick: Callable[[], object] = lambda: None
) -> dict[str, Nees | None]:
    """Our covariance over many seeds, by stage."""
    trials: dict[str, list[Attempt]] = {"coarse": [], "fine": []}
    for seed in range(seeds):
        case = draw_case(spec, seed)
        estimate(case, None, config, trials["coarse"])
        estimate(case, TimedFine(case), config, trials["fine"])
        tick()
    return {stage: nees_of(attempts) for stage, attempts in trials.items()}


def nees_specs(sizes: Iterable[int] = (100, 300, 1000, 3000)) -> list[CaseSpec]:
    """Cases of 30, 50 and 100 % right maps at stride 16."""
    return [
        CaseSpec(f"n{points}_s16_w{round(100 - 100 * right)}", points, 16, {Kind.RIGHT: right})
        for points in sizes
        for right in (0.3, 0.5, 1.0)
    ]


class TimedFine:
    """A case's fine stage that remembers the time spent on making its maps."""

    def __init__(self, case: Case) -> None:
        self.grid: CellGrid = case.fine.grid
        self.spent_ms = 0.0
        self._maps = case.fine.maps

    def maps(self, index: Tensor, centre_px: Tensor, prior_mass: Tensor, window: int) -> LossMaps:
        start = time.perf_counter()
        maps = self._maps(index, centre_px, prior_mass, window)
        self.spent_ms += 1e3 * (time.perf_counter() - start)
        return maps


class RivalTrials:
    """A rival at its thresholds, until the best is known."""

    def __init__(self, rival: Rival) -> None:
        self._rival = rival
        self._trials: dict[float, list[Attempt]] = {threshold: [] for threshold in THRESHOLDS}

    def run(self, case: Case, matches: Matches | None, stride: float) -> None:
        if len(self._trials) > 1 and len(self._trials[THRESHOLDS[0]]) == CHOOSING_SEEDS:
            self._trials = dict([self._best()])
        for threshold, attempts in self._trials.items():
            start = time.perf_counter()
            pose = None if matches is None else self._rival.solve(matches, threshold * stride, case.seed)
            attempts.append(judged(pose, case.cam_from_map, 1e3 * (time.perf_counter() - start)))

    def _best(self) -> tuple[float, list[Attempt]]:
        def median(item: tuple[float, list[Attempt]]) -> float:
            return float(np.median([attempt.rotation_deg for attempt in item[1]]))

        return min(self._trials.items(), key=median)

    def figures(self) -> Figures:
        threshold, attempts = self._best()
        return figures_of(attempts, threshold)


def estimate(case: Case, fine: TimedFine | None, config: NreConfig, into: list[Attempt]) -> Estimate:
    """Ask our estimator and note how it did."""
    start = time.perf_counter()
    answer = estimate_pose(case.xyz_map, case.camera, case.coarse, fine, config)
    ms = 1e3 * (time.perf_counter() - start)
    pose = None if answer.poses is None else answer.poses[0]
    into.append(judged(pose, case.cam_from_map, ms, answer.covariance))
    return answer


def _fine_matches(case: Case, start: Estimate, window: int) -> Matches | None:
    """Argmaxes in windows around the projections of the first pose of ``start``."""
    if start.poses is None:
        return None
    uv_px, visible = case.camera.project(start.poses[0].transform(case.xyz_map))
    index = torch.nonzero(visible & case.camera.contains(uv_px))[:, 0]
    maps = case.fine.maps(index, uv_px[index], torch.ones(len(index)), window)
    return best_cells(case.xyz_map[index], maps, case.camera)
