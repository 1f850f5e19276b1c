"""The page that lists the evaluations of several scenes."""

from __future__ import annotations

import html
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nre_ros import __version__
from nre_ros.evaluation.report import write_page

COLUMNS = (
    "scene",
    "queries",
    "answered",
    "wrong",
    "within 5 cm, 5 deg",
    "within 5 % of depth, 5 deg",
    "median error",
    "accepted of other places",
    "inside 95 % covariance",
    "latency p50 / p95, ms",
)


def write_index(folder: Path, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """``index.html`` beside the scenes' pages, from their JSON by name. Raises NreError when it cannot be written."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
    rows = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(name, of))}</tr>" for name, of in figures.items()]
    note = (
        "In brackets: 95 % intervals. Scenes without a unit are judged by shares of the depth: what is within 5 cm of "
        "theirs means nothing and is left out."
    )
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, nre_ros {html.escape(__version__)}: nre_ros report"
    body = [
        "<h1>Evaluation of all scenes</h1>",
        f'<p class="small">{made}</p>',
        f"<table><tr>{head}</tr>{''.join(rows)}</table>",
        f'<p class="small">{note}</p>',
    ]
    write_page(folder / "index.html", "nre_ros: all scenes", body)


def _cells(name: str, of: Mapping[str, Any]) -> list[str]:
    metric = of["unit"] == "metre"
    negatives = list(of["negatives"].values())
    given, asked = (sum(some[key] for some in negatives) for key in ("accepted", "queries"))
    median = "none"
    if of["median_translation"] is not None:
        distance = f"{100 * of['median_translation']:.2f} cm" if metric else f"{of['median_translation']:.3g} units"
        median = f"{distance}, {of['median_rotation_deg']:.2f} deg"
    latency = of["latency_ms"]
    return [
        f'<a href="{html.escape(name)}.html">{html.escape(name)}</a>',
        str(of["queries"]),
        _share(of["coverage"], of["intervals"]["coverage"]),
        f"{of['wrong']} of {of['accepted']}",
        _share(of["recall"]["0.05m_5deg"], of["intervals"]["recall.0.05m_5deg"]) if metric else "",
        _share(of["recall_of_view_depth"]["5%_5deg"], of["intervals"]["recall_of_view_depth.5%_5deg"]),
        median,
        f"{given} of {asked}" if negatives else "",
        f"{100 * of['nees']['within_95']:.0f} %" if of["nees"] else "",
        f"{latency['p50']:.0f} / {latency['p95']:.0f}" if latency else "",
    ]


def _share(value: float, interval: list[float] | None) -> str:
    within = f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else ""
    return f"{100 * value:.1f} %{within}"
