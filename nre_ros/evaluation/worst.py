"""The queries that went worst, to be looked at first."""

from __future__ import annotations

from collections.abc import Sequence

from nre_ros.evaluation.metrics import WRONG_DEG, Answer, Scale, is_wrong


def worst_answers(answers: Sequence[Answer], scale: Scale, count: int = 10) -> list[Answer]:
    """Answers with a truth, worst first: wrong ones by their error, then those not given, then the rest by theirs."""

    def badness(answer: Answer) -> tuple[int, float]:
        angle, distance = answer.error()
        error = max(angle / WRONG_DEG, distance / scale.wrong_distance(answer))
        if is_wrong(answer, scale):
            return 2, error
        return (0, error) if answer.accepted else (1, -answer.score)

    known = [answer for answer in answers if answer.truth is not None]
    return sorted(known, key=badness, reverse=True)[:count]


def told(answer: Answer, unit: str) -> str:
    """What became of a query, in a line."""
    angle, distance = answer.error()
    off = "no pose" if answer.map_from_cam is None else f"{distance:.3g} {unit} and {angle:.2f} deg off"
    reason = f": {answer.reason}" if answer.reason else ""
    return f"{answer.status}, {off}, score {answer.score:.2f}{reason}"
