"""One evaluation as one HTML page that needs nothing else: figures, plots, the worst queries, the map."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from nre_ros import __version__
from nre_ros.errors import NreError
from nre_ros.evaluation.evaluated import Evaluation
from nre_ros.evaluation.health import draw_health
from nre_ros.evaluation.map_picture import draw_top_view
from nre_ros.evaluation.metrics import Answer, is_wrong
from nre_ros.evaluation.pictures import draw_trajectory
from nre_ros.evaluation.report_plots import plots_of
from nre_ros.evaluation.table import figure_rows
from nre_ros.evaluation.worst import told
from nre_ros.mapping import Map

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1120px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin: 2em 0 .4em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 2px 1.2em 2px 0; vertical-align: top; }
th { font-weight: 600; } td { font-variant-numeric: tabular-nums; } tr:nth-child(even) { background: #f6f6f6; }
code { background: #f2f2f2; padding: 1px 4px; overflow-wrap: anywhere; } .small { color: #666; font-size: .9em; }
img { max-width: 100%; max-height: 760px; } figure { margin: .8em 0; } figcaption { font-size: .9em; color: #444; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1em; }
.wrong figcaption b { color: #c00; }
"""
WIDEST_PX = 900
"""Of a photo on the page."""


def write_report(
    path: str | Path,
    evaluation: Evaluation,
    map_: Map,
    worst: Sequence[Answer],
    overlays: Mapping[int, np.ndarray],
    command: str,
) -> None:
    """``overlays`` are RGB pictures of the worst answers, by stamp. Raises NreError when it cannot be written."""
    body = [
        _heading(evaluation, map_, command),
        "<h2>Figures</h2>",
        _table(figure_rows(evaluation)),
        '<p class="small">In brackets: 95 % intervals, by Wilson for shares, by resampling the queries for medians. '
        "Neighbouring frames resemble each other, so the true intervals are somewhat wider.</p>",
        *(_figure(figure, caption) for caption, figure in plots_of(evaluation).items()),
        "<h2>Where</h2>",
        _figure(draw_trajectory(map_, evaluation.answers), "Answers and true places over the map"),
        _figure(draw_health(map_, evaluation.answers), "What became of the queries, and where to map again"),
        _figure(draw_top_view(map_), "The map"),
        _worst(evaluation, worst, overlays),
    ]
    write_page(path, f"{evaluation.recording}: nre_ros evaluation", body)


def write_page(path: str | Path, title: str, body: Sequence[str]) -> None:
    """A page of ready HTML parts. Raises NreError when it cannot be written."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    text = "\n".join([head, f"<style>{STYLE}</style>", *body, "</html>", ""])
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise NreError(f"report cannot be written to {path} ({error.strerror}); choose another --report") from None


def _heading(evaluation: Evaluation, map_: Map, command: str) -> str:
    asked = evaluation.notes.get("asked") or "the localizer, without ROS"
    made_worse = evaluation.notes.get("degrade")
    facts = [
        f"{evaluation.summary.queries} queries of {evaluation.recording}, answered by {asked}",
        f"map of {map_.keyframe_count} keyframes and {map_.landmark_count} landmarks, unit {map_.unit}, "
        f"median depth {map_.median_depth:.3g}, digest {map_.digest[:12]}",
        *([f"queries made worse: {made_worse}"] if made_worse else []),
    ]
    lines = "<br>".join(html.escape(fact) for fact in facts)
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, nre_ros {__version__}"
    return (
        f"<h1>{html.escape(evaluation.recording)}</h1><p>{lines}</p>"
        f'<p class="small">{made}: <code>{html.escape(command)}</code></p>'
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{html.escape(label.strip())}</th><td>{html.escape(value)}</td></tr>" for label, value in rows)
    return f"<table>{''.join(cells)}</table>"


def _worst(evaluation: Evaluation, worst: Sequence[Answer], overlays: Mapping[int, np.ndarray]) -> str:
    unit = "m" if evaluation.scale.unit == "metre" else "units"
    parts = []
    for answer in worst:
        kind = "wrong" if is_wrong(answer, evaluation.scale) else ""
        name = answer.name or f"{answer.stamp_ns / 1e9:.3f} s"
        picture = _photo(overlays[answer.stamp_ns]) if answer.stamp_ns in overlays else ""
        caption = f"<b>{html.escape(name)}</b>{' WRONG' if kind else ''}<br>{html.escape(told(answer, unit))}"
        parts.append(f'<figure class="{kind}">{picture}<figcaption>{caption}</figcaption></figure>')
    note = "Landmarks where the answer puts them, green where the image agrees, red where not at all."
    return (
        f'<h2>The worst {len(worst)} queries</h2><p class="small">{note}</p><div class="worst">{"".join(parts)}</div>'
    )


def _figure(figure: Figure, caption: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return (
        f"<figure>{_image('png', stream.getvalue(), caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _photo(image_rgb: np.ndarray) -> str:
    width = min(WIDEST_PX, image_rgb.shape[1])
    height = round(image_rgb.shape[0] * width / image_rgb.shape[1])
    smaller = cv2.resize(image_rgb, (width, height), interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return _image("jpeg", data.tobytes(), "the query with its landmarks")


def _image(kind: str, data: bytes, alt: str) -> str:
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
