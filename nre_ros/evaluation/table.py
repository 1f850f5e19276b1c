"""The figures of an evaluation as lines to read."""

from __future__ import annotations

from nre_ros.evaluation.evaluated import Evaluation
from nre_ros.evaluation.intervals import Interval
from nre_ros.evaluation.metrics import Summary
from nre_ros.evaluation.trajectories import EVO_HINT, has_evo

Rows = list[tuple[str, str]]


def table(evaluation: Evaluation) -> str:
    """Label and figure a line."""
    rows = figure_rows(evaluation)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def figure_rows(evaluation: Evaluation) -> Rows:
    """Label and figure; intervals of 95 % in brackets."""
    rows: Rows = [(name, text) for name, text in _asked(evaluation) if text]
    rows += _answers(evaluation.summary, evaluation.scale.wrong_words)
    rows += _negatives(evaluation)
    rows += _recalls(evaluation)
    rows += _retrieval(evaluation)
    rows += _errors(evaluation)
    rows += _sureness(evaluation)
    rows += _published_transforms(evaluation)
    return rows + _cost(evaluation)


def _asked(evaluation: Evaluation) -> Rows:
    rows = [("degraded by", evaluation.notes.get("degrade", "")), ("answered by", evaluation.notes.get("asked", ""))]
    fit = evaluation.alignment
    if fit is not None:
        scale = float(fit.map_from_truth.scale)
        rows.append(("truth aligned", f"by {fit.agreeing} of {fit.accepted} accepted answers, scale {scale:.4f}"))
    return rows


def _answers(summary: Summary, wrong_words: str) -> Rows:
    given = f"{summary.accepted} ({percent(summary.coverage)}{bracket(summary.intervals['coverage'])})"
    wrong = f"{summary.wrong} beyond {wrong_words}"
    if summary.accepted:
        share = percent(summary.wrong / summary.accepted) + bracket(summary.intervals["wrong"])
        wrong += f" ({share} of the accepted)"
    return [("queries", str(summary.queries)), ("accepted", given), ("wrong", wrong)]


def _negatives(evaluation: Evaluation) -> Rows:
    return [
        (f"accepted of {name}", f"{some.accepted} of {some.queries} ({percent(some.share)}{bracket(some.interval)})")
        for name, some in evaluation.negatives.items()
    ]


def _recalls(evaluation: Evaluation) -> Rows:
    """Those in metres only where the map's unit is one."""
    summary = evaluation.summary
    groups = {"recall": " "} if evaluation.scale.unit == "metre" else {}
    groups |= {"recall_of_depth": " of the map depth, ", "recall_of_view_depth": " of the view depth, "}
    return [
        (f"recall {name.replace('_', joint)}", percent(value) + bracket(summary.intervals[f"{group}.{name}"]))
        for group, joint in groups.items()
        for name, value in getattr(summary, group).items()
    ]


def _retrieval(evaluation: Evaluation) -> Rows:
    retrieval = evaluation.retrieval
    if retrieval is None:
        return []
    rows = [(f"retrieval recall@{rank}", percent(value)) for rank, value in retrieval.recall.items()]
    if retrieval.outside:
        rows.append(("queries that share no keyframe's view", str(retrieval.outside)))
    return rows


def _errors(evaluation: Evaluation) -> Rows:
    summary, unit = evaluation.summary, evaluation.scale.unit
    if not summary.accepted:
        return [("errors", "none accepted")]
    rows = []
    for what, digits, short in (("rotation_deg", 3, "deg"), ("translation", 4, unit)):
        interval = summary.intervals[f"median_{what}"]
        within = f"  [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
        name = what.removesuffix("_deg")
        rows.append((f"median {name}", f"{getattr(summary, f'median_{what}'):.{digits}f} {short}{within}"))
        further = [f"{v:.{digits}f}" for v in list(getattr(summary, what).values())[1:]]
        rows.append((f"{name} p75 / p90 / p95", f"{' / '.join(further)} {short}"))
    if evaluation.trajectory:
        for name, short in (("ate", "ATE"), ("rpe", "RPE")):
            moved, turned = (evaluation.trajectory[f"{name}_{part}"] for part in ("translation", "rotation_deg"))
            rows.append((f"{short} rmse", f"{moved['rmse']:.4f} {unit}, {turned['rmse']:.3f} deg"))
    elif not has_evo():
        rows.append(("ATE, RPE", EVO_HINT))
    return rows


def _sureness(evaluation: Evaluation) -> Rows:
    rows = []
    found = evaluation.consistency
    if found is not None:
        mean = "-" if found.mean is None else f"{found.mean:.1f}"
        text = f"mean {mean} (honest: 6), median {found.median:.1f} (5.3), {percent(found.within_95)} within 95 %"
        rows.append(("NEES of the accepted", text))
        rows.append(("deviations are too narrow by", f"{found.inflation:.2f} times (honest: 1)"))
    if evaluation.risk is not None:
        rows.append(("area under risk over coverage", f"{evaluation.risk.area:.4f}"))
    return rows


def _published_transforms(evaluation: Evaluation) -> Rows:
    summary = evaluation.transform
    if summary is None:
        return []
    median = "none" if summary.median_translation is None else f"{summary.median_translation:.4f}"
    text = f"{summary.accepted} of {summary.queries}, {summary.wrong} wrong, median {median} {evaluation.scale.unit}"
    return [(f"transforms {evaluation.notes.get('link', '')}", text)]


def _cost(evaluation: Evaluation) -> Rows:
    summary = evaluation.summary
    rows = []
    if summary.latency_ms:
        rows.append(("latency p50 / p95 / p99", milliseconds(summary.latency_ms)))
        rows += [(f"  {stage}", milliseconds(values)) for stage, values in summary.stages_ms.items()]
    if evaluation.peak_memory_mb is None:
        return rows
    gpu = "" if evaluation.peak_gpu_mb is None else f", {evaluation.peak_gpu_mb:.0f} MB on the GPU"
    return [*rows, ("peak memory", f"{evaluation.peak_memory_mb:.0f} MB{gpu}")]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def bracket(interval: Interval | None) -> str:
    return f"  [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""


def milliseconds(values: dict[str, float]) -> str:
    return f"{' / '.join(f'{v:.0f}' for v in values.values())} ms"
