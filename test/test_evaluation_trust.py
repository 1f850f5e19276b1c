"""Intervals, honesty of covariances, risk, alignment, comparison with a baseline, and files for other tools."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nre_ros.errors import NreError, RecordingError
from nre_ros.evaluation.baseline import compare, read_baseline, records_of
from nre_ros.evaluation.consistency import LEVELS, consistency
from nre_ros.evaluation.intervals import bootstrap_interval, share_interval
from nre_ros.evaluation.metrics import Answer, Scale
from nre_ros.evaluation.risk import risk_curve
from nre_ros.evaluation.trajectories import evo_figures, has_evo, write_submission, write_trajectories
from nre_ros.evaluation.truth import align_truth, require_moving_truth
from nre_ros.evaluation.worst import worst_answers
from nre_ros.geometry import Pose
from nre_ros.geometry.alignment import Similarity

SCALE = Scale("metre", 4.0)


def pose(*twist: float) -> Pose:
    return Pose.exp(torch.tensor(twist, dtype=torch.float64))


def walk(count: int, off: float = 0.0, seed: int = 0) -> list[Answer]:
    """Accepted answers along a bent path, with errors of ``off`` (m, and as much in rad / 5)."""
    rng = np.random.default_rng(seed)
    answers = []
    for i in range(count):
        truth = pose(0.1 * i, 0.3 * math.sin(i), 0.05, 0.3 * i, math.sin(0.7 * i), 0.1 * i)
        error = pose(*(off / 5 * rng.normal(size=3)), *(off * rng.normal(size=3)))
        answers.append(Answer(i * 10**9, f"a/{i}.png", "accepted", "", 0.9, truth @ error, truth, 50.0, {}))
    return answers


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (10, 10), (3, 40), (999, 1000)])
def test_share_intervals_hold_the_share_and_never_claim_certainty(hits: int, of: int) -> None:
    low, high = share_interval(hits, of) or (math.nan, math.nan)
    assert 0 <= low <= hits / of <= high <= 1 and high - low > 0.5 / of
    assert share_interval(0, 0) is None


def test_bootstrap_is_the_same_each_time_and_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        low, high = bootstrap_interval(rng.normal(size=60)) or (math.nan, math.nan)
        covered += low <= 0 <= high
    assert covered >= 50
    values = rng.normal(size=20)
    assert bootstrap_interval(values) == bootstrap_interval(values.copy())


@pytest.mark.parametrize(("stated", "low", "high"), [(1.0, 5.0, 7.0), (0.5, 20.0, 28.0), (2.0, 1.2, 1.8)])
def test_nees_tells_how_far_the_covariance_is_off(stated: float, low: float, high: float) -> None:
    """Errors drawn from a covariance, and one stated that is ``stated`` times as wide."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(6, 6)) * 0.01
    covariance = torch.from_numpy(mix @ mix.T + 1e-6 * np.eye(6))
    draws = rng.multivariate_normal(np.zeros(6), covariance.numpy(), 400)
    answers = []
    for answer, draw in zip(walk(400), draws, strict=True):
        assert answer.truth is not None
        estimate = answer.truth @ Pose.exp(torch.from_numpy(draw))
        answers.append(replace(answer, map_from_cam=estimate, covariance=stated**2 * covariance))
    found = consistency(answers, SCALE)
    assert found is not None and found.mean is not None and low < found.mean < high
    assert found.inflation == pytest.approx(1 / stated, rel=0.1)
    shares = np.array(found.observed["pose"])
    if stated == 1.0:
        assert np.abs(shares - LEVELS).max() < 0.08 and abs(found.within_95 - 0.95) < 0.03
    else:
        assert ((shares < LEVELS) == (stated < 1)).all()
    assert consistency(walk(5), SCALE) is None


def test_risk_falls_where_scores_tell_right_from_wrong() -> None:
    right = [replace(a, score=0.5 + 0.01 * i) for i, a in enumerate(walk(20))]
    wrong = [replace(a, map_from_cam=pose(0, 0, 0, 50, 0, 0), score=0.1 + 0.01 * i) for i, a in enumerate(walk(10))]
    missed = [replace(a, map_from_cam=None, status="no_pose", score=0.0) for a in walk(10)]
    others = [replace(a, truth=None, score=0.3) for a in walk(4)] + missed[:4]
    curve = risk_curve([*right, *wrong, *missed], others, SCALE)
    assert curve is not None and curve.false_accepts is not None
    assert (curve.coverage[19], curve.risk[19]) == (20 / 40, 0)
    assert (curve.coverage[-1], curve.risk[-1]) == (30 / 40, pytest.approx(1 / 3))
    assert (curve.false_accepts[19], curve.false_accepts[-1]) == (0, 0.5)
    blind = risk_curve([replace(a, score=1 - a.score) for a in [*right, *wrong, *missed]], (), SCALE)
    assert blind is not None and blind.area > curve.area > 0 and blind.false_accepts is None
    assert risk_curve(missed, (), SCALE) is None


@pytest.mark.parametrize("mode", ["se3", "sim3"])
def test_alignment_finds_the_frame_of_the_truth_in_spite_of_wrong_answers(mode: str) -> None:
    frame = pose(0.4, -1.0, 0.2, 5, 6, 7)
    scale = torch.tensor(1.0 if mode == "se3" else 2.5, dtype=torch.float64)
    truth_from_map = Similarity(scale, frame.rotation, frame.translation)
    answers = walk(20, off=0.005)
    moved = []
    for answer in answers:
        assert answer.truth is not None
        batch = Pose(answer.truth.rotation[None], answer.truth.translation[None])
        moved.append(replace(answer, truth=truth_from_map.move(batch)[0]))
    moved[3] = replace(moved[3], map_from_cam=pose(2, 0, 0, 9, 9, 9))
    fit = align_truth(moved, mode, median_depth=4.0)
    assert (fit.agreeing, fit.accepted) == (19, 20)
    assert float(fit.map_from_truth.scale * scale) == pytest.approx(1, abs=0.01)
    errors = [a.error()[1] for i, a in enumerate(fit.answers) if i != 3]
    assert max(errors) < 0.04
    if mode == "sim3":
        with pytest.raises(RecordingError, match="else --align sim3"):
            align_truth(moved, "se3", median_depth=4.0)
    with pytest.raises(RecordingError, match="needs 3 accepted answers"):
        align_truth(moved[:2], mode, median_depth=4.0)


def test_a_constant_truth_is_refused() -> None:
    still = [replace(a, truth=pose(0, 0, 0, 1, 2, 3)) for a in walk(5)]
    with pytest.raises(RecordingError, match=r"a constant: all 5 queries have exactly the pose at \(1.000, 2.000"):
        require_moving_truth(still)
    nudged = [*still[:4], replace(still[4], truth=pose(0, 0, 0, 1, 2, 3.001))]
    require_moving_truth(nudged)


def test_a_baseline_is_beaten_or_not_beyond_noise() -> None:
    good, poor = records_of(walk(60, 0.01), SCALE), records_of(walk(60, 0.2, seed=1), SCALE)
    verdicts = {change.name: change.verdict for change in compare(good, poor)}
    assert verdicts["recall 0.05m_5deg"] == verdicts["median translation"] == "worse"
    assert {c.name: c.verdict for c in compare(poor, good)}["median translation"] == "better"
    assert {change.verdict for change in compare(good, good)} == {"same"}
    again = records_of(walk(60, 0.01, seed=2), SCALE)
    assert {change.verdict for change in compare(good, again)} == {"same"}, "other noise of the same size"
    silent = [{**record, "status": "rejected", "wrong": False} for record in good]
    verdicts = {change.name: change.verdict for change in compare(good, silent)}
    assert verdicts["coverage"] == "worse" and "median translation" not in verdicts


def test_a_baseline_of_other_queries_or_another_format_is_refused(tmp_path: Path) -> None:
    records = records_of(walk(20), SCALE)
    with pytest.raises(NreError, match="of other queries: 0 of its 20"):
        compare(records, [{**record, "name": "b"} for record in records])
    file = tmp_path / "old.json"
    for text in ("{", "[]", '{"answers": []}', '{"answers": [{"name": "a"}]}', '{"queries": 3}'):
        file.write_text(text)
        with pytest.raises(NreError, match=r"baseline .*old\.json"):
            read_baseline(file)
    file.write_text(json.dumps({"answers": records}, allow_nan=False))
    assert read_baseline(file) == records


def test_trajectories_are_tum_files(tmp_path: Path) -> None:
    answers = walk(4, 0.01)
    answers[1] = replace(answers[1], status="rejected")
    answers[2] = replace(answers[2], status="no_pose", map_from_cam=None)
    counts = {}
    for file in write_trajectories(tmp_path / "new", answers):
        rows = np.loadtxt(file)
        counts[file.name] = len(rows)
        assert rows.shape[1] == 8
        if file.name == "truth.tum":
            expected = np.stack([a.truth.translation.numpy() for a in answers if a.truth])
            np.testing.assert_allclose(rows[:, 1:4], expected, atol=1e-8)
    assert counts == {"estimated.tum": 3, "accepted.tum": 2, "truth.tum": 4}


def test_a_submission_has_the_pose_of_the_map_in_the_camera(tmp_path: Path) -> None:
    answers = walk(3)
    answers[1] = replace(answers[1], map_from_cam=None)
    file = tmp_path / "Aachen_v1_1_eval.txt"
    assert write_submission(file, answers) == 2
    name, *numbers = file.read_text().splitlines()[1].split()
    w, x, y, z, *xyz = (float(v) for v in numbers)
    cam_from_map = Pose.from_quat_xyzw(torch.tensor(xyz).double(), torch.tensor([x, y, z, w]).double())
    assert name == "2.png" and answers[2].truth is not None
    torch.testing.assert_close(cam_from_map.inverse().matrix(), answers[2].truth.matrix(), atol=1e-7, rtol=0)
    with pytest.raises(NreError, match=r"two images are called 0\.png"):
        write_submission(file, [answers[0], replace(answers[0], name="b/0.png")])


def test_evo_agrees_with_the_errors() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("evo needs Python 3.11; there `make setup` installs it")
    answers = walk(12, 0.05)
    answers[5] = replace(answers[5], status="rejected")
    figures = evo_figures(answers)
    errors = np.array([a.error() for a in answers if a.accepted])
    assert figures is not None
    assert figures["ate_translation"]["rmse"] == pytest.approx(float(np.sqrt((errors[:, 1] ** 2).mean())))
    assert figures["ate_rotation_deg"]["median"] == pytest.approx(float(np.median(errors[:, 0])))
    assert figures["rpe_translation"]["rmse"] > 0
    assert evo_figures(answers[:1]) is None


def test_without_evo_everything_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evo", None)
    monkeypatch.setitem(sys.modules, "evo.core", None)
    assert not has_evo()
    assert evo_figures(walk(3)) is None


def test_the_worst_are_the_wrong_then_the_missing_then_the_rest() -> None:
    answers = walk(4, 0.01)
    answers[2] = replace(answers[2], map_from_cam=pose(0, 0, 0, 50, 0, 0))
    answers[1] = replace(answers[1], status="no_pose", map_from_cam=None, score=0.0)
    worst = worst_answers(answers, SCALE, count=3)
    assert [a.name for a in worst[:2]] == ["a/2.png", "a/1.png"] and len(worst) == 3
