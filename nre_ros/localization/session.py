"""Where a second session's frame lies in a map: its images are localized, and the answers must agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from nre_ros.errors import MapError
from nre_ros.geometry import Pose
from nre_ros.geometry.alignment import Alignment, Similarity, align_poses, fit_points
from nre_ros.localization.localizer import Localizer
from nre_ros.mapping import Map
from nre_ros.mapping.merge import Pairs, same_landmarks
from nre_ros.mapping.subset import moved
from nre_ros.recordings.frame import Frame

FEWEST = 5
"""Accepted images that must agree on where the session lies."""
LEAST_SHARE = 0.5
"""And of all accepted ones, this share."""
MAX_ANGLE_DEG = 3.0
MAX_DISTANCE_SHARE = 0.05
"""An image agrees within this angle, and this share of the map's median depth."""
MAX_SCALE_DEVIATION = 0.02
"""A scale less sure than this is none: the images were taken too near each other."""
FEWEST_PAIRS = 50
"""Landmarks that both maps hold, from which on these refine the alignment."""
REFINEMENTS = 4


@dataclass(frozen=True)
class SessionAlignment:
    """``first_from_second``, from ``alignment`` of the accepted images and, unless ``pairs`` is 0, refined by so many
    landmarks of both maps, which it leaves ``pair_distance`` (median, map unit) apart."""

    first_from_second: Similarity
    alignment: Alignment
    images: int
    pairs: int
    pair_distance: float

    @property
    def slack(self) -> float:
        """How far the frames may still be off, map unit."""
        left = self.alignment.distance[self.alignment.inlier].median()
        return self.pair_distance if self.pairs else float(left)


def matching_frames(second: Map, frames: Iterable[Frame]) -> Iterator[tuple[int, Frame]]:
    """Keyframes of the map that have the stamps of frames, with these."""
    keyframes = {int(stamp): i for i, stamp in enumerate(second.keyframe_stamps_ns)}
    for frame in frames:
        keyframe = keyframes.get(frame.stamp_ns)
        if keyframe is not None:
            yield keyframe, frame


def align_session(localizer: Localizer, second: Map, views: Iterable[tuple[int, Frame]]) -> SessionAlignment:
    """Localize images of the second map's keyframes in the localizer's map and fit the frame that most agree on.

    Rigidly where both units are metres, else with a scale. Raises MapError, with the figures, when too few agree or
    the scale is not fixed.
    """
    found: list[Pose] = []
    keyframes: list[int] = []
    images = 0
    for keyframe, frame in views:
        images += 1
        answer = localizer.localize(frame.image_rgb, frame.camera)
        if answer.accepted and answer.map_from_cam is not None:
            found.append(answer.map_from_cam)
            keyframes.append(keyframe)
    if images == 0:
        raise MapError(
            "no image of the recording has the stamp of a keyframe of the second map; name the recording that the "
            "second map was built from"
        )
    if len(found) < FEWEST:
        raise MapError(
            f"only {len(found)} of {images} images of the second map were localized in the first, expected at least "
            f"{FEWEST}: the maps do not show the same place, or too little of it"
        )
    first, with_scale = localizer.map, not localizer.map.unit == second.unit == "metre"
    alignment = align_poses(
        second.map_from_keyframe[torch.tensor(keyframes)],
        Pose.from_matrix(torch.stack([pose.matrix() for pose in found])),
        max_distance=MAX_DISTANCE_SHARE * first.median_depth,
        max_angle_deg=MAX_ANGLE_DEG,
        with_scale=with_scale,
    )
    _require_agreement(alignment, first)
    return _refined(first, second, alignment, images, with_scale)


def _require_agreement(alignment: Alignment, first: Map) -> None:
    agreeing, total = int(alignment.inlier.sum()), len(alignment.inlier)
    if agreeing < FEWEST or agreeing < LEAST_SHARE * total:
        raise MapError(
            f"only {agreeing} of {total} localized images agree on where the second map lies, expected {FEWEST} and "
            f"{LEAST_SHARE:.0%} at least (within {MAX_ANGLE_DEG:g} deg and "
            f"{MAX_DISTANCE_SHARE * first.median_depth:.3g} {first.unit}): one of the maps is bent, or its unit is not "
            "what it says"
        )
    if alignment.scale_deviation > MAX_SCALE_DEVIATION:
        raise MapError(
            f"the second map's scale is known to {alignment.scale_deviation:.1%} only, expected "
            f"{MAX_SCALE_DEVIATION:.0%}: the localized images were taken too near each other; record more of the first "
            "map's place"
        )


def _refined(first: Map, second: Map, alignment: Alignment, images: int, with_scale: bool) -> SessionAlignment:
    """By the landmarks that both hold: thousands of them say it better than some images. Half of the pairs, those that
    fit best, are used each time."""
    best, slack = alignment.b_from_a, float(alignment.distance[alignment.inlier].median())
    pairs, apart = Pairs(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)), torch.zeros(0)
    for _ in range(REFINEMENTS):
        pairs = same_landmarks(first, moved(second, best), slack)
        if len(pairs) < FEWEST_PAIRS:
            return SessionAlignment(alignment.b_from_a, alignment, images, 0, float("nan"))
        a, b = second.arrays.xyz_map[pairs.second], first.arrays.xyz_map[pairs.first]
        apart = (best.transform(a) - b).norm(dim=1)
        nearest = apart <= apart.median()
        best = fit_points(a[nearest], b[nearest], with_scale=with_scale)
        slack = float((best.transform(a) - b).norm(dim=1).median())
    return SessionAlignment(best, alignment, images, len(pairs), slack)
