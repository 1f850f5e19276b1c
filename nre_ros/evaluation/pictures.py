"""Pictures to judge a map and its answers by: overlay, trajectory, cloud. Drawn from arrays, written as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from nre_ros.errors import RecordingError
from nre_ros.evaluation.health import draw_health
from nre_ros.evaluation.metrics import Answer
from nre_ros.evaluation.plan import plan_of
from nre_ros.geometry import Pose
from nre_ros.mapping import Map

_LOUDEST_POINTS = 60_000
"""More landmarks than this are thinned out: the cloud looks the same and the file stays small."""


_LEGEND_PX = 520


def write_pictures(folder: str | Path, map_: Map, answers: Sequence[Answer]) -> list[Path]:
    """``map.png``, ``trajectory.png`` and ``health.png``. Returns the files.

    Raises RecordingError when they cannot be written.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(f"{target} cannot hold pictures: {error}") from None
    files = [target / "map.png", target / "trajectory.png", target / "health.png"]
    draw_map(map_).savefig(files[0])
    draw_trajectory(map_, answers).savefig(files[1])
    draw_health(map_, answers).savefig(files[2])
    return files


def typical_answer(answers: Sequence[Answer]) -> int | None:
    """Index of the answer whose distance from the truth is the median; None when none was accepted."""
    given = [i for i, answer in enumerate(answers) if answer.accepted]
    given.sort(key=lambda i: answers[i].error()[1])
    return given[len(given) // 2] if given else None


def write_image(path: Path, image_rgb: np.ndarray) -> None:
    """Raises RecordingError when the file cannot be written."""
    if not cv2.imwrite(str(path), cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)):
        raise RecordingError(f"picture {path} cannot be written; is the folder there, and writable?")


def draw_overlay(image_rgb: np.ndarray, uv_px: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Landmarks where the pose puts them, uint8 RGB at twice the image's size.

    ``uv_px`` (N, 2) pixels, NaN for those without an image; ``loss`` (N,) from 0 (green, well explained) to 1 (red).
    """
    height, width = image_rgb.shape[:2]
    scale = 2
    grey = cv2.cvtColor(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    paler = cv2.addWeighted(image_rgb, 0.5, grey, 0.35, 25)
    canvas = cv2.resize(paler, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)
    with np.errstate(invalid="ignore"):
        inside = ((uv_px > -0.5) & (uv_px < [width - 0.5, height - 0.5])).all(1)
    order = np.flatnonzero(inside)[np.argsort(loss[inside])]
    for index in order:
        # the centre of pixel i of the image is at 2 i + 0.5 of the canvas; the shift keeps an eighth of a pixel
        x, y = ((uv_px[index] * scale + 0.5) * 8).round().astype(int).tolist()
        cv2.circle(canvas, (x, y), 3 * 8, (10, 10, 10), -1, cv2.LINE_AA, 3)
        cv2.circle(canvas, (x, y), 2 * 8, _traffic_light(float(loss[index])), -1, cv2.LINE_AA, 3)
    return _with_legend(canvas, len(order))


def _traffic_light(loss: float) -> tuple[int, int, int]:
    """Green at 0, yellow in the middle, red at 1."""
    share = min(max(loss, 0.0), 1.0)
    return int(255 * min(2 * share, 1)), int(235 * min(2 - 2 * share, 1)), 40


def _with_legend(canvas: np.ndarray, count: int) -> np.ndarray:
    strip = np.full((36, max(canvas.shape[1], _LEGEND_PX), 3), 245, np.uint8)
    for x in range(200):
        strip[10:26, 70 + x] = _traffic_light(x / 199)
    ink, font = (30, 30, 30), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, "loss 0", (8, 24), font, 0.5, ink, 1, cv2.LINE_AA)
    cv2.putText(strip, f"1    {count} landmarks in view", (278, 24), font, 0.5, ink, 1, cv2.LINE_AA)
    return np.concatenate([canvas, strip[:, : canvas.shape[1]]])


def draw_trajectory(map_: Map, answers: Sequence[Answer]) -> Figure:
    """Plan of true and estimated camera positions over the map's landmarks, and the errors over the queries."""
    axes_map = plan_of(map_.map_from_keyframe).axes
    figure, (plan, errors) = _figure([1.5, 1])
    _scatter_cloud(plan, _thinned(map_.xyz_map) @ axes_map.T, (0, 1), by_height=False)
    keyframes = map_.map_from_keyframe.translation.numpy() @ axes_map.T
    plan.plot(*keyframes[:, :2].T, ".", color="0.45", markersize=3, label="keyframes")
    known = [a for a in answers if a.truth is not None]
    truth = _positions([a.truth for a in known]) @ axes_map.T
    plan.plot(*truth[:, :2].T, "-", color="tab:green", linewidth=1, marker="o", markersize=4, label="true query")
    given = _positions([a.map_from_cam if a.accepted else None for a in known]) @ axes_map.T
    plan.plot(*given[:, :2].T, "x", color="tab:red", markersize=6, label="answer")
    for true, answer in zip(truth, given, strict=True):
        plan.plot(*np.stack([true, answer])[:, :2].T, color="tab:red", linewidth=0.8)
    missed = np.isnan(given).any(1)
    if missed.any():
        plan.plot(*truth[missed, :2].T, "s", color="tab:orange", markersize=7, fillstyle="none", label="no answer")
    _show(plan, np.concatenate([keyframes, truth])[:, :2], reach=map_.median_depth / 2)
    _label(plan, "plan", map_.unit)
    plan.legend(loc="best", fontsize=8)
    _plot_errors(errors, known, map_.unit)
    return figure


def _show(axes: Axes, cameras: np.ndarray, reach: float) -> None:
    """All cameras (N, 2) and what is within reach of them."""
    low, high = np.nanmin(cameras, axis=0) - reach, np.nanmax(cameras, axis=0) + reach
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])


def _plot_errors(axes: Axes, answers: Sequence[Answer], unit: str) -> None:
    angle, distance = np.array([a.error() if a.accepted else (np.nan, np.nan) for a in answers]).reshape(-1, 2).T
    index = np.arange(len(answers))
    axes.semilogy(index, np.maximum(distance, 1e-5), "o-", markersize=3, linewidth=0.7, label=f"distance, {unit}")
    axes.semilogy(index, np.maximum(angle, 1e-5), "s-", markersize=3, linewidth=0.7, label="angle, degrees")
    axes.set(title="errors of the answers", xlabel="query")
    axes.grid(True, which="major", alpha=0.4)
    axes.legend(fontsize=8)


def draw_map(map_: Map) -> Figure:
    """The landmarks from above, coloured by height, and from the side, with the keyframes' positions and views."""
    axes_map = plan_of(map_.map_from_keyframe).axes
    points = _thinned(map_.xyz_map) @ axes_map.T
    poses = map_.map_from_keyframe
    centres = poses.translation.numpy() @ axes_map.T
    views = poses.rotation[..., :, 2].numpy() @ axes_map.T
    figure, (plan, side) = _figure([1, 1])
    counts = f"{map_.landmark_count} landmarks, {map_.keyframe_count} keyframes"
    for axes, pair, title in ((plan, (0, 1), f"from above: {counts}"), (side, (0, 2), "from the side")):
        dots = _scatter_cloud(axes, points, pair, by_height=True)
        axes.quiver(*centres[:, pair].T, *views[:, pair].T, color="tab:red", scale=40, width=0.002, label="keyframes")
        _label(axes, title, map_.unit)
    figure.colorbar(dots, ax=side, label=f"height, {map_.unit}", shrink=0.7)
    return figure


def _figure(width_ratios: list[float]) -> tuple[Figure, list[Axes]]:
    """Two drawings side by side; without pyplot: no global state, no window system."""
    figure = Figure(figsize=(15, 7), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, 2, width_ratios=width_ratios))


def _scatter_cloud(axes: Axes, points: np.ndarray, pair: tuple[int, int], by_height: bool) -> PathCollection:
    """Points (N, 3) on the plane of two axes; far outliers do not shrink the picture."""
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    margin = 0.08 * (high - low).max()
    axes.set_xlim(low[pair[0]] - margin, high[pair[0]] + margin)
    axes.set_ylim(low[pair[1]] - margin, high[pair[1]] + margin)
    x, y, height = points[:, pair[0]], points[:, pair[1]], points[:, 2]
    if by_height:
        return axes.scatter(x, y, s=1.2, c=height, linewidths=0, vmin=low[2], vmax=high[2], cmap="viridis")
    return axes.scatter(x, y, s=1.2, c="0.78", linewidths=0)


def _thinned(points: np.ndarray) -> np.ndarray:
    return points[:: max(len(points) // _LOUDEST_POINTS, 1)].astype(np.float64)


def _positions(poses: Sequence[Pose | None]) -> np.ndarray:
    """(N, 3), NaN where there is no pose."""
    rows = [np.full(3, np.nan) if pose is None else pose.translation.numpy() for pose in poses]
    return np.array(rows, np.float64).reshape(-1, 3)


def _label(axes: Axes, title: str, unit: str) -> None:
    axes.set_aspect("equal", adjustable="box")
    axes.set(title=title, xlabel=unit, ylabel=unit)
