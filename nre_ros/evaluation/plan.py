"""Plans of a map: which way is up, how densely landmarks stand, cameras as arrows, a scale bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nre_ros.geometry import Pose
from nre_ros.mapping import Map

FLAT = 0.3
"""Cameras are spread over a plane when they leave it by at most this share of their second widest spread."""
LINE = 0.1
"""And along a line, which fixes no plane, when their second widest spread is at most this share of the widest."""
NEAR_Z_DEG = 20.0
"""A direction up within this of the map's z means that the map is z-up, as ROS maps are."""
CELLS = 110
"""Cells of the density along the longer side of the plan."""
REACH = 1.0
"""How far beyond the cameras the plan reaches, median depths."""
LONGER_SIDE_INCHES = 8.5


@dataclass(frozen=True)
class Plan:
    """``axes`` (3, 3): rows right, onwards and up, in the map's frame; ``up`` says in words how up was found."""

    axes: np.ndarray
    up: str

    def turn(self, vectors_map: np.ndarray) -> np.ndarray:
        """Vectors (..., 3) of the map's frame as right, onwards and up."""
        return np.asarray(vectors_map @ self.axes.T)


def plan_of(map_from_cam: Pose) -> Plan:
    """How to lay out the map that cameras (N) were posed in.

    Up is the normal of the plane that the cameras moved in, if they did, else their mean upward direction; and the
    map's z itself where that is near. A drone that looks down thus has the sky above it, too.
    """
    upward = -map_from_cam.rotation[..., :, 1].reshape(-1, 3).mean(0).double().numpy()
    forward = map_from_cam.rotation[..., :, 2].reshape(-1, 3).mean(0).double().numpy()
    centres = map_from_cam.translation.reshape(-1, 3).double().numpy()
    _, spread, principal = np.linalg.svd(centres - centres.mean(0), full_matrices=False)
    if len(centres) >= 3 and spread[2] < FLAT * spread[1] and spread[1] > LINE * spread[0]:
        towards = upward if abs(principal[2] @ upward) > abs(principal[2] @ forward) else -forward
        up, words = principal[2] * (1 if principal[2] @ towards >= 0 else -1), "normal of the cameras' plane"
    else:
        up, words = upward / max(float(np.linalg.norm(upward)), 1e-12), "mean upward direction of the cameras"
    if up[2] > np.cos(np.deg2rad(NEAR_Z_DEG)):
        return Plan(np.eye(3), "z of the map")
    right = np.cross([0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [0.0, 1.0, 0.0], up)
    right /= np.linalg.norm(right)
    return Plan(np.stack([right, np.cross(up, right), up]), words)


def density_plan(map_: Map, plan: Plan) -> tuple[Figure, Axes]:
    """A figure of the landmarks from above as a density, with a scale bar, for more to be drawn on.

    What lies further from the cameras than :data:`REACH` median depths is left out and counted. Without pyplot: no
    global state, no window system.
    """
    points = plan.turn(map_.arrays.xyz_map.numpy())[:, :2]
    cameras = plan.turn(map_.map_from_keyframe.translation.numpy())[:, :2]
    reach, (low, high) = REACH * map_.median_depth, np.percentile(points, [0.5, 99.5], axis=0)
    low = np.minimum(np.maximum(low, cameras.min(0) - reach), cameras.min(0))
    high = np.maximum(np.minimum(high, cameras.max(0) + reach), cameras.max(0))
    margin = 0.05 * max(float((high - low).max()), 1e-9)
    low, high = low - margin, high + margin
    cell = float((high - low).max()) / CELLS
    counts = np.maximum(np.ceil((high - low) / cell).astype(int), 1)
    high = low + counts * cell
    edges = [np.linspace(low[i], high[i], counts[i] + 1) for i in (0, 1)]
    density, *_ = np.histogram2d(points[:, 0], points[:, 1], bins=edges)
    size = (high - low) / float((high - low).max()) * LONGER_SIDE_INCHES
    figure = Figure(figsize=(max(size[0], 6.5) + 1.6, max(size[1], 3) + 1.2), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes: Axes = figure.subplots()
    norm = LogNorm(1, max(float(density.max()), 2))
    extent = (low[0], high[0], low[1], high[1])
    shown = np.ma.masked_less(density.T, 1)
    image = axes.imshow(shown, origin="lower", extent=extent, cmap="Greys", norm=norm, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=f"landmarks per cell of {cell:.2g} {_unit(map_)}", shrink=0.7)
    axes.set(xticks=[], yticks=[])
    _scale_bar(axes, extent, _unit(map_))
    beyond = len(points) - int(density.sum())
    axes.text(0.99, 0.01, f"{beyond} landmarks lie beyond", transform=axes.transAxes, ha="right", fontsize=8)
    return figure, axes


def draw_views(axes: Axes, map_from_cam: Pose, plan: Plan, colour: str, label: str) -> None:
    """Cameras (N) as dots, with an arrow where each looks, as long as its share in the plan."""
    if not len(map_from_cam.translation):
        return
    centres = plan.turn(map_from_cam.translation.numpy())[:, :2]
    looks = plan.turn(map_from_cam.rotation[..., :, 2].numpy())[:, :2]
    width = axes.get_xlim()[1] - axes.get_xlim()[0]
    axes.quiver(
        *centres.T, *looks.T, angles="xy", scale_units="xy", scale=28 / width, width=0.0022, color=colour, zorder=3
    )
    axes.plot(*centres.T, "o", markersize=4, color=colour, label=f"{label}: {len(centres)}", zorder=4)


def _unit(map_: Map) -> str:
    return "m" if map_.unit == "metre" else "units"


def _scale_bar(axes: Axes, extent: tuple[float, float, float, float], unit: str) -> None:
    """A bar of 1, 2 or 5 times a power of ten, about a fifth of the width, below the plan's left corner."""
    width = extent[1] - extent[0]
    decade = 10 ** np.floor(np.log10(width / 5))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= width / 5)
    x, y = extent[0] + 0.03 * width, extent[2] + 0.03 * width
    axes.plot([x, x + length], [y, y], "-", color="black", linewidth=4, solid_capstyle="butt", zorder=5)
    axes.text(x + length / 2, y + 0.012 * width, f"{length:g} {unit}", ha="center", va="bottom", zorder=5)
