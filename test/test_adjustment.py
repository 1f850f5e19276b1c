"""Landmarks moved to where the network sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ros_world
import torch
from torch import Tensor

from nre_ros.config import BuilderConfig, with_values
from nre_ros.features import FeatureNetwork
from nre_ros.mapping import MapBuilder, builder
from nre_ros.mapping.adjustment import Adjusted, adjust_landmarks
from nre_ros.mapping.bundle import Observations
from nre_ros.mapping.landmarks import place_landmarks
from nre_ros.mapping.tracks import track_keypoints

CONFIG = with_values(BuilderConfig(), {"keyframe_motion": 0.0, "points_per_keyframe": 400})
ANGLES_DEG = (0.0, 6.0, 12.0, 18.0)


class Corner:
    """A rendered corner of a room as a builder holds it before landmarks are adjusted."""

    def __init__(self, network: FeatureNetwork) -> None:
        self.made = MapBuilder(network, CONFIG)
        for i, angle in enumerate(ANGLES_DEG):
            self.made.add(replace(ros_world.frame_from(ros_world.around(angle), i, noise_seed=i), depth_m=None))
        kept = list(self.made._keyframes)
        views = [builder._view(keyframe) for keyframe in kept]
        depths, self.cameras = [keyframe.depth for keyframe in kept], [keyframe.camera for keyframe in kept]
        nothing = [torch.zeros(len(depth), dtype=torch.bool) for depth in depths]
        tracks = track_keypoints(views, nothing, 2.5, lambda *_: None)
        sightings, self.xyz_map, exact = place_landmarks(tracks, views, depths, self.cameras, CONFIG, lambda *_: None)
        assert len(self.xyz_map) > 100 and not exact.any()
        self.poses = builder._poses(views)
        self.seen = builder._observations([view.keypoints for view in views], sightings)
        self.fine = self.made._mean_descriptors(sightings, len(self.xyz_map))[1]

    def adjusted(self, uv_px: Tensor, movable: Tensor | None = None, fine: Tensor | None = None) -> Adjusted:
        every = torch.ones(len(self.xyz_map), dtype=torch.bool)
        return adjust_landmarks(
            replace(self.seen, uv_px=uv_px),
            self.xyz_map,
            self.fine if fine is None else fine,
            every if movable is None else movable,
            self.poses,
            self.cameras,
            self.made._describe,
            CONFIG,
            lambda *_: None,
        )


@pytest.fixture(scope="module")
def corner(network: FeatureNetwork) -> Corner:
    return Corner(network)


def off_the_walls(xyz_map: Tensor) -> float:
    """Median distance, metres: all texture is on the two walls."""
    return float(torch.stack([xyz_map[:, 0].abs(), xyz_map[:, 1].abs()]).amin(0).median())


def test_places_go_back_to_where_the_network_sees_the_landmark(corner: Corner) -> None:
    noise = torch.randn(corner.seen.uv_px.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adjusted = corner.adjusted(corner.seen.uv_px + 1.2 * noise)
    at = {pair: i for i, pair in enumerate(zip(*pairs(corner.seen), strict=True))}
    index = torch.tensor([at[pair] for pair in zip(*pairs(adjusted.seen), strict=True)])
    assert len(index) > 0.9 * len(corner.seen.view)
    before = 1.2 * noise[index].norm(dim=1)
    after = (adjusted.seen.uv_px - corner.seen.uv_px[index]).norm(dim=1)
    assert after.median() < 0.6 * before.median(), "half of the way"
    noisy = corner.adjusted(corner.seen.uv_px + 1.2 * noise, fine=torch.zeros_like(corner.fine))
    assert off_the_walls(adjusted.xyz_map) < 0.7 * off_the_walls(noisy.xyz_map)


def pairs(seen: Observations) -> tuple[list[int], list[int]]:
    return seen.view.tolist(), seen.point.tolist()


def test_exact_places_lose_little(corner: Corner) -> None:
    adjusted = corner.adjusted(corner.seen.uv_px)
    assert off_the_walls(adjusted.xyz_map) < off_the_walls(corner.xyz_map) + 0.002, "SIFT is exact in sharp renderings"
    assert torch.bincount(adjusted.seen.point, minlength=len(corner.xyz_map)).amin() >= CONFIG.min_track_length
    assert (adjusted.seen.view.diff() >= 0).all(), "views one after the other"
    likeness = torch.nn.functional.cosine_similarity(adjusted.fine, corner.fine)
    assert likeness.median() > 0.9


def test_measured_landmarks_stay(corner: Corner) -> None:
    movable = torch.arange(len(corner.xyz_map)) % 2 == 0
    adjusted = corner.adjusted(corner.seen.uv_px, movable)
    torch.testing.assert_close(adjusted.xyz_map[~movable], corner.xyz_map[~movable], atol=0, rtol=0)
    assert (adjusted.xyz_map[movable] != corner.xyz_map[movable]).any(1).double().mean() > 0.9
    stay = ~movable[corner.seen.point]
    kept = ~movable[adjusted.seen.point]
    torch.testing.assert_close(adjusted.seen.uv_px[kept], corner.seen.uv_px[stay], atol=0, rtol=0)


def test_a_landmark_that_the_network_does_not_know_stays(corner: Corner) -> None:
    """Descriptors of other landmarks: peaks are anywhere and do not meet."""
    adjusted = corner.adjusted(corner.seen.uv_px, fine=corner.fine.roll(37, 0))
    moved = (adjusted.xyz_map - corner.xyz_map).norm(dim=1)
    assert (moved < 1e-9).double().mean() > 0.4
    count = torch.bincount(adjusted.seen.point, minlength=len(corner.xyz_map))
    assert (count >= CONFIG.min_track_length).all() and bool(torch.isfinite(adjusted.fine).all())
