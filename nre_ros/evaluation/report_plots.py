"""The plots of an evaluation: errors, risk over coverage, scores, reliability, latency."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nre_ros.evaluation.consistency import LEVELS
from nre_ros.evaluation.evaluated import Evaluation
from nre_ros.evaluation.metrics import RECALL_LIMITS, WRONG_DEG, is_off
from nre_ros.evaluation.risk import RiskCurve

FEWEST = 5
"""Answers with a covariance that a reliability plot needs."""
Draw = Callable[[Evaluation], Figure]


def plots_of(evaluation: Evaluation) -> dict[str, Figure]:
    """By a caption that says what is seen; without those that there is nothing to draw of."""
    figures = {}
    if evaluation.summary.accepted:
        figures["Errors: the share of all queries answered within a distance and an angle"] = draw_errors(evaluation)
    if evaluation.risk is not None:
        figures["Trust: what another threshold on the score would give, and how scores are spread"] = draw_risk(
            evaluation, evaluation.risk
        )
    found = evaluation.consistency
    if found is not None and found.count >= FEWEST:
        figures["Covariance: the share of answers inside the ellipsoid of a stated confidence"] = draw_reliability(
            evaluation
        )
    if evaluation.summary.stages_ms:
        figures["Latency by stage: median, and the 95th percentile as a line"] = draw_latency(evaluation)
    return figures


def draw_errors(evaluation: Evaluation) -> Figure:
    figure, (far, turned) = _figure(2)
    errors = np.array([a.error() if a.accepted else (np.inf, np.inf) for a in evaluation.answers if a.truth])
    unit = "m" if evaluation.scale.unit == "metre" else "map units"
    _cumulative(far, errors[:, 1], f"distance, {unit}")
    _cumulative(turned, errors[:, 0], "angle, degrees")
    if unit == "m":
        for name, (limit, _) in RECALL_LIMITS.items():
            _mark(far, limit, name.split("_")[0])
    else:
        _mark(far, 0.05 * evaluation.scale.median_depth, "5 % of depth")
    for degrees in (2.0, 5.0, WRONG_DEG):
        _mark(turned, degrees, f"{degrees:g}")
    return figure


def _cumulative(axes: Axes, errors: np.ndarray, label: str) -> None:
    known = np.sort(errors[np.isfinite(errors)])
    axes.step(known, np.arange(1, len(known) + 1) / len(errors), where="post", color="tab:blue", linewidth=1.8)
    axes.axhline(len(known) / len(errors), color="0.6", linestyle=":", label="answered")
    axes.set(xscale="log", ylim=(0, 1.03), xlabel=label, ylabel="share of all queries")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", fontsize=8)


def _mark(axes: Axes, x: float, text: str) -> None:
    axes.axvline(x, color="tab:red", linewidth=0.8, alpha=0.6)
    axes.text(x, 0.02, f" {text}", color="tab:red", fontsize=8, rotation=90, ha="right", va="bottom")


def draw_risk(evaluation: Evaluation, curve: RiskCurve) -> Figure:
    figure, (risk, scores) = _figure(2)
    risk.plot(curve.coverage, curve.risk, ".-", color="tab:red", label="wrong, of the answers")
    if curve.false_accepts is not None:
        risk.plot(curve.coverage, curve.false_accepts, ".-", color="tab:purple", label="negatives answered")
    summary = evaluation.summary
    if summary.accepted:
        now = (summary.coverage, summary.wrong / summary.accepted)
        risk.plot(*now, "o", color="black", markersize=7, label="as configured", clip_on=False, zorder=5)
    risk.set(xlabel="coverage: share of queries answered", ylabel="share", xlim=(0, 1.02))
    risk.set_ylim(-0.01, max(0.1, 1.1 * max([*curve.risk, *(curve.false_accepts or [])])))
    risk.grid(True, alpha=0.3)
    risk.legend(fontsize=8)
    _scores(scores, evaluation)
    return figure


def _scores(axes: Axes, evaluation: Evaluation) -> None:
    known = [a for a in evaluation.answers if a.truth is not None and a.map_from_cam is not None]
    off = np.array([is_off(a, evaluation.scale) for a in known], bool)
    values = np.array([a.score for a in known])
    others = [a.score for some in evaluation.negative_answers.values() for a in some if a.map_from_cam is not None]
    kinds = {"pose right": ("tab:green", values[~off]), "pose wrong": ("tab:red", values[off])}
    if evaluation.negatives:
        kinds["negatives"] = ("tab:purple", np.array(others))
    counts = [some for _, some in kinds.values()]
    colours = [colour for colour, _ in kinds.values()]
    labels = [f"{name}: {len(some)}" for name, (_, some) in kinds.items()]
    axes.hist(counts, bins=np.linspace(0, 1, 21).tolist(), stacked=True, color=colours, label=labels)
    axes.set(xlabel="score", ylabel="poses found, given as an answer or not", xlim=(0, 1))
    axes.legend(fontsize=8)


def draw_reliability(evaluation: Evaluation) -> Figure:
    found = evaluation.consistency
    assert found is not None
    figure, (axes,) = _figure(1)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="honest")
    for part, shares in found.observed.items():
        axes.plot(LEVELS, shares, "o-", markersize=4, label=part)
    axes.set(xlabel="stated confidence", ylabel="share of answers inside", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(
        f"{found.count} answers; below the line: too sure (deviations {found.inflation:.1f} times too narrow)",
        fontsize=10,
    )
    axes.set_aspect("equal")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def draw_latency(evaluation: Evaluation) -> Figure:
    stages = evaluation.summary.stages_ms
    figure, (axes,) = _figure(1, height=1.2 + 0.42 * len(stages))
    names = list(stages)[::-1]
    for row, name in enumerate(names):
        p50, p95 = stages[name]["p50"], stages[name]["p95"]
        axes.barh(row, p50, color="tab:blue", height=0.6)
        axes.plot([p50, p95], [row, row], color="black", linewidth=1.2)
        axes.text(p95, row, f"  {p50:.0f} / {p95:.0f}", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="milliseconds", xlim=(0, 1.2 * max(values["p95"] for values in stages.values())))
    axes.grid(True, axis="x", alpha=0.3)
    return figure


def _figure(columns: int, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """Without pyplot: no global state, no window system."""
    figure = Figure(figsize=(6.2 * columns if columns > 1 else 6.8, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])
