"""Which keyframes saw the place of a query: VLAD over the network's coarsest map, vocabulary learned per map."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from torch import Tensor

VOCABULARY_SIZE = 32
SAMPLES = 20000


def learn_vocabulary(contexts: list[Tensor], seed: int = 0) -> Tensor:
    """Cluster centres (V, C) float32 of unit descriptors; ``contexts`` are maps (C, h, w), one a keyframe."""
    cells = torch.cat([c.flatten(1).T for c in contexts])
    chosen = np.random.default_rng(seed).permutation(len(cells))[:SAMPLES]
    size = min(VOCABULARY_SIZE, len(chosen))
    centres, _ = kmeans2(cells[chosen].float().numpy(), size, iter=12, minit="++", seed=seed)
    return torch.from_numpy(np.nan_to_num(centres.astype(np.float32)))


def aggregate(context: Tensor, vocabulary: Tensor) -> Tensor:
    """Global descriptor (V * C,) float32 of unit length from a map (C, h, w) of unit descriptors.

    VLAD: residuals to the nearest centre summed per centre, each sum normalised, then the whole.
    """
    cells = context.flatten(1).T.float()
    nearest = (cells @ vocabulary.T - 0.5 * vocabulary.square().sum(1)).argmax(1)
    residual = cells - vocabulary[nearest]
    sums = torch.zeros_like(vocabulary).index_add_(0, nearest, residual)
    return F.normalize(F.normalize(sums, dim=1).flatten(), dim=0)


def nearest_keyframes(query: Tensor, stored: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices and similarities of the ``count`` stored descriptors (K, D) most like the query (D,), best first."""
    similarity = stored.to(query.dtype) @ query
    best = similarity.topk(min(count, len(stored)))
    return best.indices, best.values
