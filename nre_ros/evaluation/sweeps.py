"""Recall against strength: a kind of degradation at several strengths, or a map with less and less in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nre_ros.errors import ConfigError
from nre_ros.evaluation.degradations import Degradation, parse_degradations
from nre_ros.mapping import Map
from nre_ros.mapping.subset import subset

SPARSER = "keyframes"
"""Not a degradation of the queries: every N-th keyframe alone is left in the map, with the landmarks it sees."""


@dataclass(frozen=True)
class Condition:
    """``name`` as in a table's head; the queries go through ``chain``, the map keeps one keyframe of ``every``."""

    name: str
    chain: tuple[Degradation, ...] = ()
    every: int = 1


def parse_sweep(text: str) -> list[Condition]:
    """``dark:0.5,0.2`` to two conditions. Raises ConfigError for unknown kinds and bad strengths."""
    kind, colon, strengths = text.partition(":")
    words = [word.strip() for word in strengths.split(",") if word.strip()]
    if not colon or not words:
        raise ConfigError(f"sweep {text!r} names no strengths, expected such as dark:0.5,0.2 or {SPARSER}:2,4")
    if kind != SPARSER:
        return [Condition(f"{kind}:{word}", parse_degradations([f"{kind}:{word}"])) for word in words]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"sweep {text!r} needs whole numbers: 4 leaves every fourth keyframe in the map")
    return [Condition(f"{SPARSER}:{word}", every=int(word)) for word in words]


def conditions(degrade: Sequence[str], sweeps: Sequence[str]) -> list[Condition]:
    """One condition, ``degrade``, or those of all sweeps after the queries as they are, each behind ``degrade``."""
    chain = parse_degradations(degrade) if degrade else ()
    base = Condition(",".join(map(str, chain)) or "as recorded", chain)
    swept = [condition for sweep in sweeps for condition in parse_sweep(sweep)]
    return [base, *(Condition(c.name, (*chain, *c.chain), c.every) for c in swept)]


def thinned(map_: Map, every: int) -> Map:
    """The map with every so many of its keyframes, from the first. Raises MapError when too little is left."""
    if every == 1:
        return map_
    kept = torch.arange(map_.keyframe_count) % every == 0
    return subset(map_, torch.ones(map_.landmark_count, dtype=torch.bool), kept)
