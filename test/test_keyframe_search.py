"""Searching very many keyframes: as brute force does, but for the few that groups and codes miss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.mapping.keyframe_search import EXACT_UP_TO, KeyframeSearch
from nre_ros.mapping.retrieval import nearest_keyframes

KEYFRAMES, NUMBERS, PLACES, BEST = 9000, 384, 300, 8


def keyframes(count: int, seed: int) -> Tensor:
    """Descriptors (count, NUMBERS) of places, each seen from here and there, with what passes by."""
    rng = torch.Generator().manual_seed(0)
    place = torch.randn((PLACES, NUMBERS), generator=rng)
    sideways = torch.randn((PLACES, 6, NUMBERS), generator=rng)
    rng.manual_seed(seed)
    where = torch.randint(PLACES, (count,), generator=rng)
    moved = torch.randn((count, 1, 6), generator=rng) @ sideways[where]
    passing = torch.randn((count, NUMBERS), generator=rng)
    return F.normalize(place[where] + 0.25 * moved[:, 0] + 0.5 * passing, dim=1)


@pytest.fixture(scope="module")
def stored() -> Tensor:
    return keyframes(KEYFRAMES, 1).half()


@pytest.fixture(scope="module")
def search(stored: Tensor) -> KeyframeSearch:
    return KeyframeSearch(stored)


def share_found(search: KeyframeSearch, stored: Tensor, allowed: Tensor | None = None) -> float:
    """Of the truly best, when equal similarities in half precision count as equal."""
    found = []
    for query in keyframes(80, 2):
        index, similarity = search.nearest(query, BEST, allowed)
        exact = stored.float() @ query
        if allowed is not None:
            assert bool(allowed[index].all())
            exact[~allowed] = -1
        assert len(torch.unique(index)) == BEST and bool((similarity.diff() <= 0).all())
        torch.testing.assert_close(similarity.float(), exact[index], atol=1e-3, rtol=0)
        found.append((exact[index] >= exact.topk(BEST).values[-1] - 5e-4).float().mean())
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("count", [20, EXACT_UP_TO])
def test_few_keyframes_are_all_compared(stored: Tensor, count: int) -> None:
    few = stored[:count]
    search, some = KeyframeSearch(few), torch.arange(count) % 3 == 0
    for query in keyframes(5, 2):
        for mine, exact in zip(search.nearest(query, BEST), nearest_keyframes(query, few, BEST), strict=True):
            assert torch.equal(mine, exact)
        index, similarity = search.nearest(query, 5, some)
        assert torch.equal(similarity, nearest_keyframes(query, few[::3], 5)[1])
        assert torch.equal(index, 3 * nearest_keyframes(query, few[::3], 5)[0])


def test_of_many_the_best_are_found(search: KeyframeSearch, stored: Tensor) -> None:
    assert share_found(search, stored) > 0.99
    shares = [len(search._groups.likeliest(query, None)) for query in keyframes(3, 2)] if search._groups else []
    assert shares and max(shares) < KEYFRAMES / 10, "few are compared"


@pytest.mark.parametrize("share", [0.01, 0.6])
def test_only_what_is_allowed_is_found(search: KeyframeSearch, stored: Tensor, share: float) -> None:
    """Few are compared all, many are searched."""
    allowed = torch.rand(KEYFRAMES, generator=torch.Generator().manual_seed(3)) < share
    assert share_found(search, stored, allowed) > (0.99 if share > 0.5 else 0.9999)


def test_the_same_map_gives_the_same_answers(search: KeyframeSearch, stored: Tensor) -> None:
    again = KeyframeSearch(stored.clone())
    for query in keyframes(20, 2):
        for one, other in zip(search.nearest(query, BEST), again.nearest(query, BEST), strict=True):
            assert torch.equal(one, other)


def test_many_that_are_alike_are_no_trouble() -> None:
    """A robot that stands still: fewer different keyframes than groups, and one group with nearly all."""
    parked = keyframes(40, 1).half()[torch.arange(4000).clamp(max=39)]
    search = KeyframeSearch(parked)
    query = parked[7].float()
    index, similarity = search.nearest(query, 3)
    assert int(index[0]) == 7 and float(similarity[0]) == pytest.approx(1, abs=2e-3)


def test_damage_is_named(stored: Tensor) -> None:
    """Large arrays are not read as a map is loaded."""
    damaged = stored.clone()
    damaged[1234, 5] = torch.nan
    with pytest.raises(MapError, match=r"keyframe_global.*map check"):
        KeyframeSearch(damaged)
