"""Where in a map images are answered and where not, and which places to record again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from nre_ros.evaluation.metrics import Answer, Scale, is_wrong
from nre_ros.evaluation.plan import Plan, density_plan, draw_views, plan_of
from nre_ros.geometry import Pose
from nre_ros.mapping import Map

VIEW_DEG = 60.0
"""Queries that look within this of each other's direction belong to one area, if they are near."""
POOR_SHARE, POOR_QUERIES = 0.3, 2
"""An area is to be recorded again when this share of its queries, and this many, failed."""
MOST_AREAS = 3


@dataclass(frozen=True)
class Area:
    """Queries that stand near ``centre`` (3,) and look along ``direction`` (3,), both in the map's frame, and how many
    of them were not answered, or wrongly. ``radius`` in the map's unit."""

    centre: np.ndarray
    direction: np.ndarray
    radius: float
    queries: int
    failed: int


def worst_areas(answers: Sequence[Answer], radius: float, scale: Scale) -> list[Area]:
    """Up to :data:`MOST_AREAS` areas in which answers with a truth most often failed, worst first, none twice."""
    judged = [answer for answer in answers if answer.truth is not None]
    if not judged:
        return []
    poses = torch.stack([answer.truth.matrix() for answer in judged if answer.truth is not None]).numpy()
    centres, looks = poses[:, :3, 3], poses[:, :3, 2]
    failed = np.array([not answer.accepted or is_wrong(answer, scale) for answer in judged])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    together = (apart <= radius) & (looks @ looks.T >= np.cos(np.deg2rad(VIEW_DEG)))
    areas: list[Area] = []
    left = failed.copy()
    while left.any() and len(areas) < MOST_AREAS:
        losses = np.where(left, (together & left).sum(1), 0)
        members = together[int(losses.argmax())]
        bad = members & left
        if bad.sum() >= POOR_QUERIES and bad.sum() >= POOR_SHARE * members.sum():
            direction = looks[bad].mean(0)
            direction /= max(float(np.linalg.norm(direction)), 1e-12)
            areas.append(Area(centres[bad].mean(0), direction, radius, int(members.sum()), int(bad.sum())))
        left &= ~bad
    return sorted(areas, key=lambda area: area.failed, reverse=True)


def advice(areas: Sequence[Area], unit: str) -> list[str]:
    """What to do about the areas, a sentence each."""
    short = "m" if unit == "metre" else "units"
    return [
        f"{i}: remap here, around ({', '.join(f'{v:.1f}' for v in area.centre)}) {short} looking along "
        f"({', '.join(f'{v:.1f}' for v in area.direction)}): {area.failed} of {area.queries} queries fail"
        for i, area in enumerate(areas, 1)
    ] or ["no area fails often enough to be mapped again"]


def draw_health(map_: Map, answers: Sequence[Answer]) -> Figure:
    """Queries at their true places from above, by what became of them, and the areas to map again."""
    plan = plan_of(map_.map_from_keyframe)
    scale = Scale(map_.unit, map_.median_depth)
    areas = worst_areas(answers, map_.median_depth / 2, scale)
    figure, axes = density_plan(map_, plan)
    kinds = {
        ("tab:green", "right"): [a for a in answers if a.accepted and not is_wrong(a, scale)],
        ("tab:orange", "refused"): [a for a in answers if not a.accepted],
        ("tab:red", "wrong"): [a for a in answers if is_wrong(a, scale)],
    }
    for (colour, label), some in kinds.items():
        draw_views(axes, _truths(some), plan, colour, label)
    for i, area in enumerate(areas, 1):
        _circle(figure, area, plan, str(i))
    figure.suptitle(f"answers of {len(answers)} queries, from above (up: {plan.up})")
    axes.set_title("\n".join(advice(areas, map_.unit)), fontsize=10, loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False)
    return figure


def _truths(answers: Sequence[Answer]) -> Pose:
    known = [answer.truth.matrix() for answer in answers if answer.truth is not None]
    return Pose.from_matrix(torch.stack(known) if known else torch.zeros((0, 4, 4), dtype=torch.float64))


def _circle(figure: Figure, area: Area, plan: Plan, name: str) -> None:
    axes = figure.axes[0]
    x, y = plan.turn(area.centre)[:2]
    turn = np.linspace(0, 2 * np.pi, 60)
    axes.plot(x + area.radius * np.cos(turn), y + area.radius * np.sin(turn), "--", color="tab:red", linewidth=1.2)
    dx, dy = area.radius * plan.turn(area.direction)[:2]
    axes.annotate(
        "", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "->", "color": "tab:red", "linewidth": 1.6}, zorder=6
    )
    axes.annotate(name, (x, y + area.radius), color="tab:red", fontsize=13, ha="center", va="bottom", weight="bold")
