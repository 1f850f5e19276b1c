"""A map from above: where its landmarks stand, where its keyframes looked, and which of them see too little."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from nre_ros.errors import NreError
from nre_ros.evaluation.plan import density_plan, draw_views, plan_of
from nre_ros.mapping import Map
from nre_ros.mapping.coverage import ENOUGH_CELLS, ENOUGH_LANDMARKS, coverage_of


def draw_top_view(map_: Map) -> Figure:
    poses, weak = map_.map_from_keyframe, coverage_of(map_).weak
    plan = plan_of(poses)
    figure, axes = density_plan(map_, plan)
    draw_views(axes, poses[~weak], plan, "tab:blue", "keyframes")
    few = f"weak keyframes (under {ENOUGH_LANDMARKS} landmarks, or in under {ENOUGH_CELLS:.0%} of the cells)"
    draw_views(axes, poses[weak], plan, "tab:red", few)
    figure.suptitle(f"{map_.landmark_count} landmarks, {map_.keyframe_count} keyframes, from above (up: {plan.up})")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, frameon=False)
    return figure


def write_figure(figure: Figure, path: str | Path) -> None:
    """Raises NreError when the picture cannot be written."""
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise NreError(f"picture {path} cannot be written ({error}); name a .png in a folder that is there") from None
