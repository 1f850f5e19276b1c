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

from nre_ros.features import FeatureNetwork, limit_size
from nre_ros.mapping import Map
from nre_ros.mapping.retrieval import aggregate, nearest_keyframes
from nre_ros.recordings import Frame

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

    def __init__(self, map_: Map, network: FeatureNetwork, max_image_side: int) -> None:
        self._map = map_
        self._network = network
        self._max_image_side = max_image_side

    def ranking(self, frame: Frame, count: int = max(RANKS)) -> tuple[int, ...]:
        """Ids of the ``count`` keyframes most like the frame's image, best first."""
        image, _ = limit_size(frame.image_rgb, frame.camera, self._max_image_side)
        arrays, device = self._map.arrays, self._network.device
        query = aggregate(self._network.extract(image).context.values, self._map.vocabulary.to(device))
        keyframes, _ = nearest_keyframes(query, arrays.keyframe_global, count)
        return tuple(keyframes.tolist())

    def judge(self, frame: Frame) -> Retrieved | None:
        """None for a frame without a true pose."""
        if frame.map_from_cam is None:
            return None
        shares = shares_view(self._map, frame)
        hits = (rank for rank, keyframe in enumerate(self.ranking(frame), 1) if shares[keyframe])
        return Retrieved(frame.stamp_ns, int(shares.sum()), next(hits, None))


def shares_view(map_: Map, frame: Frame) -> np.ndarray:
    """Mask (K,) of the keyframes that share the view of a posed frame, by the module's definition."""
    assert frame.map_from_cam is not None
    arrays = map_.arrays
    xyz_cam = frame.map_from_cam.inverse().transform(arrays.xyz_map)
    uv_px, visible = frame.camera.project(xyz_cam)
    inside = visible & frame.camera.contains(uv_px)
    keyframes = map_.map_from_keyframe
    axes = keyframes.rotation[:, :, 2]
    offset = keyframes.translation - frame.map_from_cam.translation
    facing = axes @ frame.map_from_cam.rotation[:, 2] > np.cos(np.radians(AXES_DEG))
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
