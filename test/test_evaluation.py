"""Figures against ones worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from nre_ros.errors import RecordingError
from nre_ros.evaluation import Answer, summarise
from nre_ros.evaluation.metrics import pose_line
from nre_ros.geometry import Pose

TRUTH = Pose.exp(torch.tensor([0.3, -0.2, 0.1, 1.0, 2.0, 3.0], dtype=torch.float64))


def moved(metres: float, degrees: float) -> Pose:
    twist = torch.tensor([0.0, math.radians(degrees), 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    turned = TRUTH @ Pose.exp(twist)
    return Pose(turned.rotation, TRUTH.translation + torch.tensor([0.0, metres, 0.0]))


def answer(
    pose: Pose | None, status: str = "accepted", truth: Pose | None = TRUTH, latency_ms: float = 100.0, reason: str = ""
) -> Answer:
    stages = {"network": latency_ms / 4, "total": latency_ms}
    return Answer(1_700_000_000_000_000_042, "a.png", status, reason, 0.75, pose, truth, latency_ms, stages)


ANSWERS: Sequence[Answer] = (
    answer(moved(0.02, 1.0), latency_ms=100),  # within all limits
    answer(moved(0.20, 1.5), latency_ms=200),  # within 25 cm 2 deg
    answer(moved(0.20, 4.0), latency_ms=300),  # within 50 cm 5 deg
    answer(moved(0.01, 4.0), latency_ms=400),  # within 5 cm 5 deg but not 25 cm 2 deg
    answer(moved(3.00, 1.0), latency_ms=500),  # within 5 m 10 deg, and wrong
    answer(moved(0.10, 30.0), latency_ms=600),  # wrong by its rotation
    answer(moved(0.00, 0.0), "rejected", latency_ms=700),  # right, but not given as an answer
    answer(None, "no_pose", latency_ms=800),
)


def test_recalls_count_accepted_answers_over_all_queries() -> None:
    summary = summarise(ANSWERS, median_depth=4.0)
    assert (summary.queries, summary.accepted, summary.wrong) == (8, 6, 2)
    assert summary.recall == {"0.05m_5deg": 2 / 8, "0.25m_2deg": 2 / 8, "0.5m_5deg": 4 / 8, "5m_10deg": 5 / 8}
    # 1 % of the depth is 4 cm, 5 % are 20 cm; the second and third lie at 20 cm but for rounding
    assert summary.recall_of_depth["1%_1deg"] in (0, 1 / 8)
    assert 2 / 8 <= summary.recall_of_depth["5%_5deg"] <= 4 / 8
    assert summarise(ANSWERS, median_depth=4.1).recall_of_depth == {"1%_1deg": pytest.approx(1 / 8), "5%_5deg": 4 / 8}


def test_medians_are_of_accepted_answers() -> None:
    summary = summarise(ANSWERS, 4.0)
    assert summary.median_rotation_deg == pytest.approx((1.5 + 4.0) / 2)
    assert summary.median_translation == pytest.approx((0.10 + 0.20) / 2)
    assert summary.latency_ms == {q: pytest.approx(v) for q, v in {"p50": 450, "p95": 765, "p99": 793}.items()}
    assert summary.stages_ms == {"network": {q: pytest.approx(v / 4) for q, v in summary.latency_ms.items()}}
    assert summary.translation["p50"] == pytest.approx(summary.median_translation)
    assert list(summary.rotation_deg.values()) == sorted(summary.rotation_deg.values())


def test_without_an_accepted_answer_there_are_no_medians() -> None:
    summary = summarise(ANSWERS[-2:], 4.0)
    assert (summary.queries, summary.accepted, summary.wrong) == (2, 0, 0)
    assert summary.median_rotation_deg is None and summary.median_translation is None
    assert summary.rotation_deg == summary.translation == {} and summary.intervals["wrong"] is None
    assert set(summary.recall.values()) == {0.0}


def test_queries_without_truth_count_for_nothing() -> None:
    unknown = answer(moved(9.0, 90.0), truth=None)
    assert summarise([*ANSWERS, unknown], 4.0) == summarise(ANSWERS, 4.0)
    for answers in ([], [unknown, unknown]):
        with pytest.raises(RecordingError, match=f"none of {len(answers)} queries has a true pose"):
            summarise(answers, 4.0)


def test_the_summary_is_json() -> None:
    figures = json.loads(json.dumps(summarise(ANSWERS, 4.0).as_dict(ANSWERS), allow_nan=False))
    assert figures["recall"]["0.5m_5deg"] == 0.5
    assert figures["poses"] == [pose_line(answer) for answer in ANSWERS]


def test_a_pose_line_is_tum_with_status_score_and_reason() -> None:
    stamp, *numbers, status, score, word, more = pose_line(answer(TRUTH, "rejected", reason="too few")).split()
    assert stamp == "1700000000.000000042"
    given = torch.tensor([float(v) for v in numbers], dtype=torch.float64)
    assert given.shape == (7,)
    read = Pose.from_quat_xyzw(given[:3], given[3:])
    torch.testing.assert_close(read.matrix(), TRUTH.matrix(), atol=1e-8, rtol=0)
    assert (status, score, word, more) == ("rejected", "0.7500", "too", "few")


def test_a_pose_line_without_a_pose_has_its_seven_columns() -> None:
    words = pose_line(answer(None, "no_pose")).split()
    assert len(words) == 10
    assert words[1:8] == ["nan"] * 7


def test_wrong_is_by_metres_or_where_there_are_none_by_the_depth() -> None:
    far = replace(answer(moved(0.4, 0.0)), view_depth=4.0)
    assert (summarise([far], 100.0, "metre").wrong, summarise([far], 100.0, "arbitrary").wrong) == (0, 1)
    assert summarise([replace(far, view_depth=None)], 100.0, "arbitrary").wrong == 0
    assert summarise([answer(moved(0.0, 11.0))], 100.0, "arbitrary").wrong == 1
