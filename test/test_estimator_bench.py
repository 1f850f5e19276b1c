"""The synthetic cases are what they claim to be, and the benchmark writes what it says it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nre_ros.cli.main import main
from nre_ros.config import NreConfig
from nre_ros.errors import ConfigError
from nre_ros.evaluation.estimator_bench import CHOOSING_SEEDS, THRESHOLDS, RivalTrials, compare
from nre_ros.evaluation.estimator_cases import (
    COARSE_JITTER,
    GROUPS,
    HEIGHT,
    WIDTH,
    Case,
    CaseSpec,
    Kind,
    draw_case,
    specs_named,
)
from nre_ros.evaluation.estimator_figures import as_json, figures_of, judged, nees_of, shares_worse
from nre_ros.evaluation.estimator_memory import peak_above
from nre_ros.evaluation.fine_bumps import FineBumps, smooth_noise
from nre_ros.evaluation.rivals import Matches, Rival
from nre_ros.geometry import CellGrid, Pose

MIXED = CaseSpec("mixed", 400, 8, {Kind.RIGHT: 0.3, Kind.WEAKER: 0.3, Kind.REPEATED: 0.2, Kind.SHIFTED: 0.1})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small maps gain nothing from a second thread, and lose much where other processes want the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mixed() -> Case:
    return draw_case(MIXED, 5)


def peaks(case: Case) -> torch.Tensor:
    """The best cell of each coarse map (N, 2)."""
    return torch.stack(
        [case.coarse.gain.flatten(1).argmax(1) % case.coarse.gain.shape[-1],
         case.coarse.gain.flatten(1).argmax(1) // case.coarse.gain.shape[-1]], -1
    )  # fmt: skip


def test_a_seed_says_everything(mixed: Case) -> None:
    again, other = draw_case(MIXED, 5), draw_case(MIXED, 6)
    assert torch.equal(mixed.xyz_map, again.xyz_map)
    assert torch.equal(mixed.coarse.gain, again.coarse.gain)
    assert torch.equal(mixed.fine.xy_cells.nan_to_num(), again.fine.xy_cells.nan_to_num())
    assert not torch.equal(mixed.coarse.gain, other.coarse.gain)


def test_kinds_have_their_shares(mixed: Case) -> None:
    assert np.bincount(mixed.kind.numpy()).tolist() == [120, 120, 80, 40, 40]


@pytest.mark.parametrize("camera", ["pinhole", "plumb_bob", "rational", "equidistant"])
def test_right_maps_peak_at_the_true_projection(camera: str) -> None:
    case = draw_case(CaseSpec("right", 400, 16, {Kind.RIGHT: 0.5}, camera), 0)
    right = case.kind == Kind.RIGHT
    uv_px, visible = case.camera.project(case.cam_from_map.transform(case.xyz_map))
    assert torch.allclose(uv_px, case.true_px, atol=1e-6)
    assert visible[right].all() and case.camera.contains(uv_px[right]).all()
    off = peaks(case) - case.coarse.grid.cell_from_pixel(case.true_px)
    # the jitter, rounding to cells, and now and then the noise
    spread = math.sqrt(COARSE_JITTER**2 + 1 / 12)
    assert torch.all(off[right].abs().median(0).values < spread)
    assert (off[right].abs().amax(-1) < 4 * spread).double().mean() > 0.97
    assert (off[~right].abs().amax(-1) < 4 * spread).double().mean() < 0.05


def test_a_weaker_mode_is_there_but_not_the_best(mixed: Case) -> None:
    weaker = mixed.kind == Kind.WEAKER
    cells = mixed.coarse.grid.cell_from_pixel(mixed.true_px)
    misled = (peaks(mixed) - cells).abs().amax(-1) > 2
    assert 0.7 < misled[weaker].double().mean() < 1
    at_truth = mixed.coarse.patches(cells[None].round().long() - 1, 3)[0][0].amax((-1, -2))
    assert at_truth[weaker].median() > 0.4 * mixed.coarse.ceiling
    assert at_truth[mixed.kind == Kind.WRONG].median() < 0.1 * mixed.coarse.ceiling


def test_repeated_structure_is_shifted_alike(mixed: Case) -> None:
    off = (peaks(mixed) - mixed.coarse.grid.cell_from_pixel(mixed.true_px))[mixed.kind == Kind.SHIFTED]
    inside = (off - off.median(0).values).abs().amax(-1) < 2
    # the others are shifted off the image
    assert inside.double().mean() > 0.6
    assert off.median(0).values.norm() * MIXED.stride > 60


def test_coarse_maps_are_truncated_softmaxes(mixed: Case) -> None:
    gain, ceiling = mixed.coarse.gain, mixed.coarse.ceiling
    assert ceiling == pytest.approx(math.log(gain[0].numel() + 1))
    kept = ((gain - ceiling).exp() * (gain > 0)).sum((-1, -2))
    truncated = (gain == 0).sum((-1, -2))
    assert torch.all(kept <= 1 + 1e-4)
    assert torch.all(kept + truncated * math.exp(-ceiling) >= 1 - 1e-4)


def test_noise_has_unit_variance_and_the_width_it_should() -> None:
    noise = smooth_noise(torch.from_numpy(np.random.default_rng(0).standard_normal((20, 60, 80), dtype=np.float32)))
    assert noise.std() == pytest.approx(1, abs=0.02)
    # of the golden fine windows: 0.67, 0.20
    assert (noise[..., 1:] * noise[..., :-1]).mean() == pytest.approx(0.67, abs=0.02)
    assert (noise[:, 2:] * noise[:, :-2]).mean() == pytest.approx(0.21, abs=0.02)


def test_fine_windows_cut_again_show_the_same_map(mixed: Case) -> None:
    index = torch.arange(10)
    cells = mixed.fine.grid.cell_from_pixel(mixed.true_px[index]).round().long()
    whole = mixed.fine.logits(index, cells - 10, 21)
    part = mixed.fine.logits(index, cells - 3, 9)
    assert torch.equal(whole[:, 7:16, 7:16], part)
    alone = mixed.fine.logits(index[4:5], cells[4:5] - 3, 9)
    assert torch.equal(part[4], alone[0])


@pytest.mark.parametrize("window", [8, 16])
def test_fine_windows_hold_the_prior_mass(mixed: Case, window: int) -> None:
    corner = torch.tensor([[3.0, 200.0], [WIDTH - 2.0, HEIGHT - 2.0], [300.0, 200.0]], dtype=torch.float64)
    mass = torch.tensor([0.5, 0.9, 1.0])
    maps = mixed.fine.maps(torch.tensor([0, 1, 2]), corner, mass, window)
    assert maps.gain.shape == (3, window + 1, window + 1)
    assert maps.ceiling == pytest.approx(math.log(320 * 240 + 1))
    cells = maps.origin_cells[:, None] + torch.arange(window + 1)[:, None]
    inside = (cells >= 0) & (cells < torch.tensor([320, 240]))
    on_image = inside[:, :, None, 1] & inside[:, None, :, 0]
    assert not on_image[0].all() and not on_image[1].all() and on_image[2].all()
    assert torch.all(maps.gain[~on_image] == 0)
    # in a window of some hundred cells of the image's 76800 hardly anything is truncated
    density = (maps.gain - maps.ceiling).exp() * (maps.gain > 0)
    assert torch.allclose(density.sum((-1, -2)), mass, atol=2e-3)


def test_windows_off_the_image_have_no_gain(mixed: Case) -> None:
    away = torch.tensor([[-500.0, 100.0], [torch.nan, 3.0], [1e12, 1e12]], dtype=torch.float64)
    maps = mixed.fine.maps(torch.tensor([0, 1, 2]), away, torch.ones(3), 16)
    assert torch.all(maps.gain == 0)


def test_fine_maps_of_right_landmarks_peak_at_the_truth(mixed: Case) -> None:
    index = torch.nonzero(mixed.kind != Kind.WRONG)[:, 0]
    true_px = mixed.true_px[index]
    maps = mixed.fine.maps(index, true_px, torch.ones(len(index)), 16)
    flat = maps.gain.flatten(1).argmax(1)
    best = torch.stack([flat % 17, flat // 17], -1) + maps.origin_cells
    near = (best - maps.grid.cell_from_pixel(true_px)).abs().amax(-1) < 2.5
    right = mixed.kind[index] != Kind.SHIFTED
    assert near[right].double().mean() > 0.95
    assert near[~right].double().mean() < 0.3


def test_bumps_are_gaussians_by_hand() -> None:
    grid = CellGrid(2, 0.5)
    one = torch.ones(1, 2, dtype=torch.float64)
    centres = torch.tensor([[[5.5, 4.0], [torch.nan, torch.nan]]], dtype=torch.float64)
    bump = FineBumps(grid, (320, 240), centres, 8 * one, 1.5 * one, torch.zeros(1, 2, dtype=torch.long))
    flat = FineBumps(grid, (320, 240), centres, 0 * one, one, torch.zeros(1, 2, dtype=torch.long))
    first = torch.zeros(1, 2, dtype=torch.long)
    lifted = bump.logits(torch.tensor([0]), first, 9) - flat.logits(torch.tensor([0]), first, 9)
    assert float(lifted[0, 3, 7]) == pytest.approx(8 * math.exp(-(1.5**2 + 1**2) / (2 * 1.5**2)), rel=1e-5)


def test_cases_and_groups_go_by_name() -> None:
    assert [spec.name for spec in specs_named(["few", "n200_s8_w93"])] == [spec.name for spec in GROUPS["few"]]
    spec = specs_named(["n3000_s16_w50"])[0]
    assert (spec.points, spec.stride, spec.shares[Kind.RIGHT]) == (3000, 16, 0.5)
    with pytest.raises(ConfigError, match="known ones: n1000_s16_w30"):
        specs_named(["n7"])


def test_errors_are_measured_against_the_truth() -> None:
    truth = Pose.from_quat_xyzw(torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.1, 0.5, 0.2, 0.8]).double())
    twist = torch.tensor([0.0, math.radians(0.5), 0.0, 0.0, 0.0, -0.04], dtype=torch.float64)
    pose = Pose.exp(-twist) @ truth
    attempt = judged(pose, truth, 1.0, 0.01 * torch.eye(6, dtype=torch.float64))
    assert attempt.rotation_deg == pytest.approx(0.5)
    assert attempt.position == pytest.approx(0.04, rel=1e-3)
    # cam_from_map lost 4 cm of depth too few: the camera stands that far behind its true place
    assert attempt.forward == pytest.approx(-0.04, rel=1e-3)
    assert attempt.nees == pytest.approx(float(twist @ twist) / 0.01)
    lost = judged(None, truth, 1.0)
    assert math.isinf(lost.rotation_deg) and not lost.found
    figures = figures_of([attempt, lost, attempt])
    assert figures.success == pytest.approx(2 / 3)
    assert figures.rotation_deg == pytest.approx(0.5)
    assert shares_worse([attempt, lost], [lost, attempt]) == (0.5, 0.5)
    assert as_json(figures_of([lost]))["rotation_deg"] is None


def test_nees_of_honest_errors_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    truth = Pose.identity()
    root = torch.diag(torch.tensor([1e-3, 2e-3, 1e-3, 0.01, 0.02, 0.03], dtype=torch.float64))
    errors = [root @ torch.from_numpy(rng.standard_normal(6)) for _ in range(300)]

    def measured(scale: float) -> tuple[float, float, float]:
        found = nees_of([judged(Pose.exp(error), truth, 0.0, scale * root @ root) for error in errors])
        assert found is not None and found.count == 300
        return found.low, found.mean, found.high

    low, mean, high = measured(1.0)
    assert low < mean < high
    assert measured(0.7)[1] > high
    assert measured(1.4)[1] < low


def test_a_rival_keeps_its_best_threshold() -> None:
    case = draw_case(CaseSpec("few", 20, 16, {Kind.RIGHT: 1.0}), 0)
    asked = []

    def solve(matches: Matches, threshold_px: float, seed: int) -> Pose:
        asked.append(threshold_px)
        off = torch.tensor([abs(threshold_px - 24.0) + 1, 0, 0, 0, 0, 0], dtype=torch.float64) * 1e-3
        return Pose.exp(off) @ case.cam_from_map

    trials = RivalTrials(Rival("stub", solve))
    nothing = Matches(np.zeros((0, 3)), np.zeros((0, 2)), case.camera)
    for _ in range(CHOOSING_SEEDS + 2):
        trials.run(case, nothing, 16)
    assert trials.figures().threshold == 1.5
    assert asked == [16 * threshold for threshold in THRESHOLDS] * CHOOSING_SEEDS + [24.0, 24.0]


def test_ours_finds_easy_cases_at_both_stages() -> None:
    figures = compare(CaseSpec("easy", 200, 8, {Kind.RIGHT: 0.7}), 3, NreConfig(), {})
    assert figures.coarse["nre"].success == 1
    assert figures.fine["nre"].success == 1
    assert figures.fine["nre"].rotation_deg < figures.coarse["nre"].rotation_deg
    assert figures.windows_ms > 0


def test_peak_memory_sees_what_was_used_and_freed() -> None:
    peak = peak_above(lambda: torch.ones(25_000_000).sum())
    if peak is None:
        pytest.skip("this system does not let a process reset its peak memory")
    assert 90 < peak < 150


def test_the_command_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    argv = ["bench-estimator", "--quick", "--seeds", "1", "--rivals", "usac_default", "--json", str(path)]
    assert main(argv) == 0
    figures = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(figures) == {"torch_threads", "cores", "config", "cases", "extra_megabytes"}
    assert [case["case"] for case in figures["cases"]] == ["n200_s16_w50", "n200_s8_repeated"]
    case = figures["cases"][0]
    assert {"points", "seeds", "windows_ms", "worse_rotation", "worse_position"} <= set(case)
    for stage in ("coarse", "fine"):
        assert list(case[stage]) == ["nre", "re", "usac_default"]
        keys = {"rotation_deg", "position", "success", "ms", "forward", "forward_error", "threshold", "nees"}
        assert set(case[stage]["nre"]) == keys
    shown = capsys.readouterr().out
    assert "median rotation error, deg" in shown and "n200_s8_repeated" in shown


def test_the_command_checks_the_covariance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nees.json"
    assert main(["bench-estimator", "--nees", "--quick", "--seeds", "4", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["nees"]
    assert [row["case"] for row in rows] == ["n100_s16_w70", "n100_s16_w50", "n100_s16_w0"]
    assert set(rows[2]["coarse"]) == {"mean", "low", "high", "count", "lost"}
    assert "NEES over 4 seeds" in capsys.readouterr().out


def test_the_command_refuses_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench-estimator", "--cases", "n7", "--rivals"]) == 1
    assert "case 'n7' is unknown" in capsys.readouterr().err
