"""What sets the right pose apart among thousands: more than its share of the landmarks in view are where it says.

The summed gain (Eq. 6) alone does not. A landmark that is expected in view and not found there costs no more than one
out of view, and some cells please many landmarks at once; with few right landmarks among hundreds, a pose that pulls
them all into view, upon such cells, gains more than the true one. Poses are therefore sampled and ranked, though never
refined, by a likelihood ratio: against the landmarks' average on the same cell, in a mixture that counts on misses.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nre_ros.nre.loss_maps import LossMaps

FOUND = 0.5
"""Share of the landmarks in view that are counted on to be found. Of every second of office's extreme queries, in a map
of every sixth frame, 57, 60, 63, 63 % came right at 0.1, 0.3, 0.6, 0.8 in an earlier form, which ranked in the fine
windows too; 60 % do at this in the present one, and 50 % ranked by the summed gain."""


def ranking_maps(maps: LossMaps, counts: Tensor) -> LossMaps:
    """Maps (..., N, h, w) of ln(1 - f + f p_n / mean p), f being :data:`FOUND` and p_n the truncated density of the
    landmark n that ``maps`` tell, averaged over the landmarks of which ``counts`` (..., N) is true; the others' maps
    are zero. Their gains are negative where a landmark is not found in view, and zero, as ever, out of it."""
    counts = counts[..., None, None]
    density = maps.gain.float().exp() * counts
    average = density.sum(-3, keepdim=True) / counts.sum(-3, keepdim=True).clamp_min(1)
    ratio = density / average.clamp_min(1e-30)
    return replace(maps, gain=torch.log_(ratio.mul_(FOUND).add_(1 - FOUND)) * counts)
