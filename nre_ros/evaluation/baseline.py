"""Two runs on the same queries: what became better or worse by more than chance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nre_ros.errors import NreError
from nre_ros.evaluation.intervals import paired_interval
from nre_ros.evaluation.metrics import DEPTH_RECALL_LIMITS, RECALL_LIMITS, Answer, Scale, is_wrong

RECORDS = "answers"
"""Key of the records in the JSON of an evaluation."""
LEAST_SHARED = 0.5
"""Share of the queries of either run that the other must have asked about, too."""
FEWEST_SHARED = 5
TIES = 1e-9


def records_of(answers: Sequence[Answer], scale: Scale) -> list[dict[str, object]]:
    """One a query with a truth, as numbers that JSON holds: what :func:`compare` needs, and a reader may want."""
    return [_record(answer, scale) for answer in answers if answer.truth is not None]


def _record(answer: Answer, scale: Scale) -> dict[str, object]:
    angle, distance = answer.error()
    return {
        "stamp_ns": answer.stamp_ns,
        "name": answer.name,
        "status": answer.status,
        "reason": answer.reason,
        "score": _finite(answer.score),
        "rotation_deg": _finite(angle),
        "translation": _finite(distance),
        "depth": scale.median_depth if answer.view_depth is None else answer.view_depth,
        "wrong": is_wrong(answer, scale),
        "latency_ms": _finite(answer.latency_ms),
    }


@dataclass(frozen=True)
class Change:
    """A figure before and after; ``low`` to ``high`` is the 99 % interval of what it changed by (a dozen figures are
    looked at, one in twenty of which would change at 95 % by chance). ``gain`` is 1 where more is better, else -1."""

    name: str
    old: float
    new: float
    low: float
    high: float
    gain: int

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "same": beyond noise or not."""
        low, high = sorted((self.gain * self.low, self.gain * self.high))
        return "better" if low > TIES else "worse" if high < -TIES else "same"

    def __str__(self) -> str:
        return f"{self.name} {self.old:.4g} -> {self.new:.4g} ({self.low:+.3g} to {self.high:+.3g})"


def read_baseline(path: str | Path) -> list[dict[str, Any]]:
    """The records of an earlier ``--json``. Raises NreError for files that are none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise NreError(f"baseline {path} cannot be read ({error}); give the --json of an earlier evaluation") from None
    records = content.get(RECORDS) if isinstance(content, dict) else None
    whole = isinstance(records, list) and all(isinstance(r, dict) and r.keys() >= _KEYS for r in records)
    if not records or not whole:
        raise NreError(
            f"baseline {path} holds no answers by query, expected the list {RECORDS!r} of an evaluation's --json; "
            "evaluate the old version anew"
        )
    return list(records)


_KEYS = {"stamp_ns", "name", "status", "rotation_deg", "translation", "depth", "wrong"}


def compare(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Figures of the queries that both runs asked about, by a paired bootstrap. Errors are over accepted answers.

    Raises NreError when the two runs are not of the same queries.
    """
    before = {(r["stamp_ns"], r["name"]): r for r in old}
    pairs = [(before[key], r) for r in new if (key := (r["stamp_ns"], r["name"])) in before]
    if len(pairs) < FEWEST_SHARED or len(pairs) < LEAST_SHARED * max(len(old), len(new)):
        raise NreError(
            f"the baseline is of other queries: {len(pairs)} of its {len(old)} are among these {len(new)}, expected "
            f"{FEWEST_SHARED}, and half of either, at least; give the same recording, --split and --every"
        )
    changes = []
    for name, (values_of, figure, gain) in _figures().items():
        a, b = (np.array([values_of(record) for record in records], float) for records in zip(*pairs, strict=True))
        if np.isnan(a).all() or np.isnan(b).all():
            continue
        low, high = paired_interval(a, b, figure)
        if math.isfinite(low):
            changes.append(
                Change(name, float(figure(a[None], axis=1)[0]), float(figure(b[None], axis=1)[0]), low, high, gain)
            )
    return changes


Figure = tuple[Callable[[Mapping[str, Any]], float], Callable[..., np.ndarray], int]


def _figures() -> dict[str, Figure]:
    """By name: the value of a query, the figure over all of them, and whether more is better."""
    figures: dict[str, Figure] = {"coverage": (_accepted, np.mean, 1)}
    for name, (far, degrees) in RECALL_LIMITS.items():
        figures[f"recall {name}"] = (_within(far, degrees, of_depth=False), np.mean, 1)
    for name, (far, degrees) in DEPTH_RECALL_LIMITS.items():
        figures[f"recall {name} of the view depth"] = (_within(far, degrees, of_depth=True), np.mean, 1)
    figures["wrong share"] = (lambda r: float(r["wrong"]), np.mean, -1)
    figures["median rotation, deg"] = (_when_accepted("rotation_deg"), np.nanmedian, -1)
    figures["median translation"] = (_when_accepted("translation"), np.nanmedian, -1)
    return figures


def _accepted(record: Mapping[str, Any]) -> float:
    return float(record["status"] == "accepted")


def _when_accepted(key: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda record: record[key] if _accepted(record) and record[key] is not None else math.nan


def _within(far: float, degrees: float, *, of_depth: bool) -> Callable[[Mapping[str, Any]], float]:
    def hit(record: Mapping[str, Any]) -> float:
        if not _accepted(record) or record["translation"] is None:
            return 0.0
        limit = far * (record["depth"] if of_depth else 1.0)
        return float(record["translation"] <= limit and record["rotation_deg"] <= degrees)

    return hit


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
