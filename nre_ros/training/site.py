"""Adapting the weights to one place: pairs from its map and recording, and a guard that compares before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from nre_ros.errors import RecordingError
from nre_ros.mapping import Map
from nre_ros.recordings import Recording
from nre_ros.training.config import TrainingConfig
from nre_ros.training.data import TrainingData
from nre_ros.training.photos import PhotoPairs
from nre_ros.training.pose_queries import fixed_queries
from nre_ros.training.pose_validation import PoseScore
from nre_ros.training.posed import PosedImage, PosedPairs, scene_of
from nre_ros.training.validation import Score, fixed_pairs

HELD_OUT_SHARE = 0.2
"""Of the keyframes, the last ones: what lies between frames that were trained on would be too easy."""

COARSE_GAIN, FINE_GAIN = 0.005, 0.01
"""Least gains that count: of the share of coarse hits, and of the fine error as a share of it."""

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Verdict:
    """Mean shares of coarse hits and fine errors (px) over the held-out sets, with the old and the new weights.

    ``poses_before`` and ``poses_after`` are the mean shares of poses found, within 1 and within 5; NaN without any.
    """

    coarse_before: float
    coarse_after: float
    fine_before_px: float
    fine_after_px: float
    poses_before: float
    poses_after: float

    @property
    def improved(self) -> bool:
        """Of the hits and the errors one got better by a gain that counts, and the other not worse by more than half of
        one; and not fewer poses were found: single points that match better are worth nothing without."""
        if self.poses_after < self.poses_before:
            return False
        coarse = (self.coarse_after - self.coarse_before) / COARSE_GAIN
        fine = (1 - self.fine_after_px / self.fine_before_px) / FINE_GAIN
        gains = np.array([coarse, fine])  # its extremes are NaN where one gain is: no improvement
        return bool(gains.max() >= 1 and gains.min() >= -0.5)

    def __str__(self) -> str:
        return (
            f"held-out frames: coarse within 1 cell {self.coarse_before:.3f} -> {self.coarse_after:.3f}, "
            f"fine {self.fine_before_px:.3f} -> {self.fine_after_px:.3f} px, "
            f"poses found {self.poses_before:.3f} -> {self.poses_after:.3f}"
        )


def judge(
    before: Mapping[str, Score],
    after: Mapping[str, Score],
    poses_before: Mapping[str, PoseScore],
    poses_after: Mapping[str, PoseScore],
) -> Verdict:
    """Compare the scores of two networks on the same sets; without sets of pairs nothing has improved."""
    figures = [[(s.coarse8, s.fine_px) for s in scores.values()] for scores in (before, after)]
    if not all(figures):
        return Verdict(*[float("nan")] * 6)
    (coarse_before, fine_before), (coarse_after, fine_after) = (np.mean(f, axis=0) for f in figures)
    found = (_found(poses_before), _found(poses_after))
    return Verdict(float(coarse_before), float(coarse_after), float(fine_before), float(fine_after), *found)


def _found(poses: Mapping[str, PoseScore]) -> float:
    shares = [(score.within_1 + score.within_5) / 2 for score in poses.values()]
    return float(np.mean(shares)) if shares else float("nan")


def gather_site(map_: Map, recording: Recording, config: TrainingConfig) -> TrainingData:
    """Pairs of keyframes that see the same landmarks, and of views of single keyframes; the last fifth is held out.

    Raises RecordingError when the recording does not hold the map's keyframes or too few of them overlap.
    """
    images = keyframe_images(map_, recording)
    held_out = np.arange(len(images)) >= len(images) * (1 - HELD_OUT_SHARE)
    known = [image for image, held in zip(images, held_out, strict=True) if not held]
    few = config.pairs.min_points
    to_train = PosedPairs([scene_of(f"the map of {recording.name}", known, few)], config.pairs)
    to_test = PosedPairs([scene_of(f"the end of {recording.name}", images, few, held_out)], config.pairs)
    count = config.validation_pairs
    return TrainingData(
        {"posed": to_train, "photos": PhotoPairs([image.source for image in known], config.pairs)},
        {
            "site": fixed_pairs(to_test, count, config, strong=False),
            "site_strong": fixed_pairs(to_test, count, config, strong=True),
        },
        {
            "site": fixed_queries(to_test, config, strong=False),
            "site_strong": fixed_queries(to_test, config, strong=True),
        },
    )


def keyframe_images(map_: Map, recording: Recording) -> list[PosedImage]:
    """The map's keyframes that the recording holds, in order of time, with the landmarks each sees."""
    wanted = {int(stamp_ns): k for k, stamp_ns in enumerate(map_.keyframe_stamps_ns)}
    found: dict[int, PosedImage] = {}
    for frame in recording.frames():
        keyframe = wanted.get(frame.stamp_ns)
        if keyframe is None:
            continue
        camera = map_.cameras[int(map_.arrays.keyframe_camera[keyframe])]
        image = cv2.resize(frame.image_rgb, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
        seen = map_.observations_of(keyframe)
        point, first = np.unique(map_.arrays.landmark[seen].numpy(), return_index=True)
        uv_px = map_.arrays.uv_px[seen].numpy()[first].astype(np.float64)
        xyz = map_.arrays.xyz_map[torch.from_numpy(point).long()].numpy().astype(np.float64)
        cam_from_map = map_.map_from_keyframe[keyframe].inverse()
        found[frame.stamp_ns] = PosedImage(coded.tobytes(), uv_px, point, xyz, camera, cam_from_map)
    if len(found) < 2:
        raise RecordingError(
            f"{recording.name} holds {len(found)} of the map's {len(wanted)} keyframes; give the recording that the "
            "map was made of"
        )
    return [found[stamp_ns] for stamp_ns in sorted(found)]
