"""Whether retrieval brings up keyframes that see what a query sees.

A keyframe *shares the view* of a query at the true pose when at least :data:`SHARED_LANDMARKS` of its landmarks lie in
front of the query's camera and inside its image, the optical axes are less than :data:`AXES_DEG` apart, and the
cameras are no further apart than the median depth of these landmarks, in the query and in the keyframe: nothing is
seen at more than about twice the scale. Occlusion is not looked at: two rooms back to back share what lies beyond
their wall. A sparse map shares less than a dense one, as its landmarks are what is counted.

A query counts as found at k when one of its k best keyframes shares its view. Queries whose view no keyframe shares
cannot be found; they are counted apart and left out of the recalls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.features import DenseFeatures
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping import Map
from nre_ros.mapping.keyframe_search import KeyframeSearch
from nre_ros.mapping.retrieval import aggregate

RANKS = (1, 5, 20)
SHARED_LANDMARKS = 20
AXES_DEG = 60.0


@dataclass(frozen=True)
class Retrieved:
    """One posed query: ``sharing``, how many keyframes share its view, and the ``rank`` (from 1) of the best of them
    among the first ``max(RANKS)`` retrieved, None when none is among them."""

    stamp_ns: int
    sharing: int
    rank: int | None


@dataclass(frozen=True)
class RetrievalSummary:
    """``recall`` by rank ("1", "5", "20"), over the queries whose view a keyframe shares; empty if there are none.

    ``outside`` counts the posed queries whose view no keyframe shares.
    """

    queries: int
    outside: int
    recall: dict[str, float]

    def as_dict(self, retrieved: Sequence[Retrieved]) -> dict[str, object]:
        """For JSON, with the rank of every query by its stamp (ns)."""
        return {**vars(self), "ranks": {str(item.stamp_ns): item.rank for item in retrieved}}


class RetrievalJudge:
    """Ranks the keyframes of one map for posed queries, as the localizer does, with the truth beside it."""

    def __init__(self, map_: Map) -> None:
        self._map = map_
        self._search = KeyframeSearch(map_.arrays.keyframe_global)

    @torch.inference_mode()
    def ranking(self, features: DenseFeatures, count: int = max(RANKS)) -> tuple[int, ...]:
        """Ids of the ``count`` keyframes most like an image by its features, best first."""
        values = features.context.values
        query = aggregate(values, self._map.vocabulary.to(values.device))
        keyframes, _ = self._search.nearest(query, count)
        return tuple(keyframes.tolist())

    def judge(self, stamp_ns: int, ranking: Sequence[int], camera: Camera, truth: Pose) -> Retrieved:
        shares = shares_view(self._map, camera, truth)
        hits = (rank for rank, keyframe in enumerate(ranking, 1) if shares[keyframe])
        return Retrieved(stamp_ns, int(shares.sum()), next(hits, None))


def shares_view(map_: Map, camera: Camera, map_from_cam: Pose) -> np.ndarray:
    """Mask (K,) of the keyframes that share the view of a posed camera, by the module's definition."""
    arrays = map_.arrays
    xyz_cam = map_from_cam.inverse().transform(arrays.xyz_map)
    uv_px, visible = camera.project(xyz_cam)
    inside = visible & camera.contains(uv_px)
    keyframes = map_.map_from_keyframe
    axes = keyframes.rotation[:, :, 2]
    offset = keyframes.translation - map_from_cam.translation
    facing = axes @ map_from_cam.rotation[:, 2] > np.cos(np.radians(AXES_DEG))
    shared = np.zeros(map_.keyframe_count, bool)
    for k in torch.nonzero(facing)[:, 0].tolist():
        landmark = arrays.landmark[map_.observations_of(k)].long()
        landmark = landmark[inside[landmark]]
        if len(landmark) >= SHARED_LANDMARKS:
            depth = xyz_cam[landmark, 2].median()
            keyframe_depth = ((arrays.xyz_map[landmark] - keyframes.translation[k]) @ axes[k]).median()
            shared[k] = bool(offset[k].norm() <= torch.minimum(depth, keyframe_depth))
    return shared


def summarise_retrieval(retrieved: Sequence[Retrieved]) -> RetrievalSummary:
    ranks = [item.rank for item in retrieved if item.sharing]
    recall = {str(k): float(np.mean([rank is not None and rank <= k for rank in ranks])) for k in RANKS if ranks}
    return RetrievalSummary(len(retrieved), len(retrieved) - len(ranks), recall)
