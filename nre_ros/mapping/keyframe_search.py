"""Of very many keyframes those most like a query: the likeliest groups of them first, then some of these exactly.

Comparing the query with every keyframe (3 kB each) takes time in proportion to their number. Those of one place are
alike, so they are grouped as the map is loaded; no file holds the groups. A query is compared with the groups' means,
then with codes of what the members of the likeliest differ in from their mean, and the best by these are compared
whole. Codes alone, without groups, do not do: global descriptors vary in too many directions (of 100k made of real
images, the 1024 best by 64 numbers hold 93 % of the truly best 20; here 320 hold 98 %).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nre_ros.errors import MapError
from nre_ros.mapping.retrieval import nearest_keyframes

EXACT_UP_TO = 3000
"""Keyframes of which every one is compared."""
GROUPS = 512
GROUP_SIZE = 64
"""Keyframes of a group on average, until there are :data:`GROUPS`."""
LOOKED_THROUGH = 4096
"""Keyframes of the likeliest groups, at most, whose codes are read."""
COMPARED = 320
"""Keyframes, by their codes, whose descriptors are read."""
AXES = 64
"""Numbers of a code, and principal axes in which keyframes are grouped."""
SAMPLED_EVERY = 12
"""Every so manieth keyframe serves to find axes and groups: half as many of 100k, and twice as much is missed."""
LEAST_SAMPLED = 2048
ROUNDS = 5
"""Of the iterations that find axes and groups."""
CHUNK = 8192
"""Keyframes in single precision at a time."""


class KeyframeSearch:
    """Searches global descriptors ``stored`` (K, D), which stay where they are; on a GPU, whose memory is faster, all
    are compared. The same query gets the same answer. Not for several threads at once.

    Raises MapError when descriptors are to be grouped and are not finite.
    """

    def __init__(self, stored: Tensor) -> None:
        self._stored = stored
        large = stored.device.type == "cpu" and len(stored) > EXACT_UP_TO
        self._groups = _Groups(stored) if large else None

    def nearest(self, query: Tensor, count: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Indices and similarities of the ``count`` descriptors most like the query (D,), best first; only of those
        ``allowed``, a mask (K,), where one is given."""
        size = len(self._stored) if allowed is None else int(allowed.sum())
        if self._groups is not None and size > EXACT_UP_TO and count <= COMPARED:
            index = self._groups.likeliest(query, allowed)
            rows = self._groups.read(self._stored, index)
        elif allowed is not None:
            index = torch.nonzero(allowed)[:, 0].to(self._stored.device)
            rows = self._stored[index]
        else:
            return nearest_keyframes(query, self._stored, count)
        best, similarity = nearest_keyframes(query, rows, count)
        return index[best], similarity


class _Groups:
    """Keyframes by groups, and codes of what each differs in from its group's mean.

    Counting is left to numpy and what is read is copied into memory that is kept: otherwise both take as long as the
    arithmetic.
    """

    def __init__(self, stored: Tensor) -> None:
        group, means = grouped(stored)
        member = torch.argsort(group, stable=True)
        sample = _sampled(len(stored))
        axes = principal_axes(stored[sample].float() - means[group[sample]])
        apart = (stored[part].float() - means[group[part]] for part in member.split(CHUNK))
        self._codes = torch.cat([(part @ axes).to(stored.dtype) for part in apart])
        self._means_and_axes = torch.cat([means, axes.T]).to(stored.dtype)
        self._member = member.numpy()  # by groups, as their codes
        self._size = np.bincount(group.numpy(), minlength=len(means))
        self._start = np.cumsum(self._size) - self._size
        self._read_codes = self._codes.new_empty((LOOKED_THROUGH, self._codes.shape[1]))
        self._read = stored.new_empty((COMPARED, stored.shape[1]))

    def likeliest(self, query: Tensor, allowed: Tensor | None) -> Tensor:
        """COMPARED keyframes, by the similarity of their group's mean and what their code adds to it."""
        asked = self._means_and_axes @ query.to(self._means_and_axes)
        similarity, code = asked[: len(self._size)].float().numpy(), asked[len(self._size) :]
        groups = np.argsort(-similarity, kind="stable")
        if allowed is None:
            groups = groups[: int(np.searchsorted(np.cumsum(self._size[groups]), LOOKED_THROUGH)) + 1]
        size = self._size[groups]
        place = np.repeat(self._start[groups] - np.cumsum(size) + size, size) + np.arange(int(size.sum()))
        of_mean = np.repeat(similarity[groups], size)
        if allowed is not None:
            inside = allowed.numpy()[self._member[place]]
            place, of_mean = place[inside], of_mean[inside]
        place, of_mean = place[:LOOKED_THROUGH], of_mean[:LOOKED_THROUGH]
        codes = torch.index_select(self._codes, 0, torch.from_numpy(place), out=self._read_codes[: len(place)])
        likeness = (codes @ code).float().numpy() + of_mean
        best = np.argpartition(likeness, len(place) - COMPARED)[-COMPARED:]
        return torch.from_numpy(np.sort(self._member[place[best]]))

    def read(self, stored: Tensor, index: Tensor) -> Tensor:
        """The descriptors ``index`` (COMPARED,), until the next query."""
        return torch.index_select(stored, 0, index, out=self._read)


def grouped(stored: Tensor) -> tuple[Tensor, Tensor]:
    """Groups (K,) int64 of alike descriptors (K, D), and their means (G, D) float32, zero for an empty one.

    k-means in the principal axes of a sample; then all keyframes go to the nearest centre.
    """
    axes = principal_axes(stored[_sampled(len(stored))].float())
    codes = torch.cat([part.float() @ axes for part in stored.split(CHUNK)])
    if not bool(torch.isfinite(codes).all()):
        raise MapError("map array keyframe_global holds NaN or infinity; see nre_ros map check, build the map again")
    sample = codes[_sampled(len(codes))]
    centres = sample[_evenly(len(sample), min(GROUPS, len(stored) // GROUP_SIZE))]
    for _ in range(ROUNDS):
        centres = _means([sample], _nearest(sample, centres), len(centres))
    group = torch.cat([_nearest(part, centres) for part in codes.split(CHUNK)])
    return group, _means(stored.split(CHUNK), group, len(centres))


def principal_axes(rows: Tensor) -> Tensor:
    """Orthonormal axes (D, AXES) along which rows (N, D) differ most from their mean, by subspace iteration."""
    centred = rows - rows.mean(0)
    start = torch.randn((rows.shape[1], min(AXES, rows.shape[1])), generator=torch.Generator().manual_seed(0))
    axes: Tensor = torch.linalg.qr(start)[0]
    for _ in range(ROUNDS):
        axes = torch.linalg.qr(centred.T @ (centred @ axes))[0]
    return axes


def _sampled(count: int) -> Tensor:
    return _evenly(count, max(LEAST_SAMPLED, count // SAMPLED_EVERY))


def _evenly(count: int, most: int) -> Tensor:
    """Up to ``most`` of ``count`` indices, the first and the last among them."""
    return torch.linspace(0, count - 1, min(most, count), dtype=torch.float64).long()


def _nearest(rows: Tensor, centres: Tensor) -> Tensor:
    return (rows @ centres.T - 0.5 * centres.square().sum(1)).argmax(1)


def _means(parts: Sequence[Tensor], group: Tensor, count: int) -> Tensor:
    """Means (count, D) float32 of the rows of each group, zero of none; ``parts`` follow each other."""
    total = torch.zeros((count, parts[0].shape[1]))
    for part, mine in zip(parts, group.split([len(part) for part in parts]), strict=True):
        total.index_add_(0, mine, part.float())
    return total / torch.bincount(group, minlength=count).clamp_min(1)[:, None]
