"""Keypoints of one view found in another by dense descriptors along their epipolar lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import ros_world
import torch
from torch import Tensor

from nre_ros.config import BuilderConfig, with_values
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Pose
from nre_ros.mapping import MapBuilder, builder, spots
from nre_ros.mapping.guided import DenseView, find_points
from nre_ros.mapping.keypoints import detect
from nre_ros.mapping.landmarks import place_landmarks
from nre_ros.mapping.spots import SAME_PX, find_spots
from nre_ros.mapping.tracks import track_keypoints
from nre_ros.recordings.frame import Frame

BASELINES_DEG = (0.0, 25.0)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [
        ros_world.frame_from(ros_world.around(angle), i, noise_seed=i) for i, angle in enumerate((*BASELINES_DEG, 12.0))
    ]


@pytest.fixture(scope="module")
def views(frames: list[Frame], network: FeatureNetwork) -> list[DenseView]:
    return [DenseView(frame.camera, pose_of(frame), network.extract(frame.image_rgb)) for frame in frames]


@pytest.fixture(scope="module")
def keypoints(frames: list[Frame]) -> list[np.ndarray]:
    return [detect(frame.image_rgb, 400).uv_px for frame in frames]


def pose_of(frame: Frame) -> Pose:
    assert frame.map_from_cam is not None
    return frame.map_from_cam


def true_places(uv_px: np.ndarray, frame: Frame, other: Frame) -> tuple[Tensor, Tensor]:
    """Where pixels (N, 2) of a frame appear in another, and a mask of those that nothing hides there."""
    assert frame.depth_m is not None and other.depth_m is not None
    column, row = np.rint(uv_px).astype(int).T
    depth = torch.from_numpy(frame.depth_m[row, column].astype(np.float64))
    bearings = frame.camera.unproject(torch.from_numpy(uv_px))
    xyz_map = pose_of(frame).transform(bearings / bearings[:, 2:] * depth[:, None])
    xyz_cam = pose_of(other).inverse().transform(xyz_map)
    there, visible = other.camera.project(xyz_cam)
    inside = visible & (there > 1).all(1) & (there < torch.tensor([318.0, 238.0])).all(1)
    at = there.nan_to_num().round().long().clamp(min=0)
    shown = torch.from_numpy(other.depth_m)[at[:, 1].clamp(max=239), at[:, 0].clamp(max=319)]
    return there, inside & ((shown - xyz_cam[:, 2]).abs() < 0.05)


def test_points_are_found_across_a_wide_baseline(
    frames: list[Frame], views: list[DenseView], keypoints: list[np.ndarray]
) -> None:
    uv_px = torch.from_numpy(keypoints[0])
    found = find_points(views[0].points_at(uv_px), views[0], views[1])
    there, shown = true_places(keypoints[0], frames[0], frames[1])
    error_px = (found.uv_px - there[found.point]).norm(dim=1)
    right = (error_px < 3) & shown[found.point]
    assert right.double().mean() > 0.9
    assert right.sum() > 0.4 * shown.sum(), "of those that can be seen"
    assert error_px[right].median() < 1.0
    assert ((found.doubt >= 0) & (found.doubt <= 1)).all()
    assert len(torch.unique(found.point)) == len(found.point)


def test_what_is_not_in_view_is_hardly_ever_found(views: list[DenseView], keypoints: list[np.ndarray]) -> None:
    """The other view shows the same, but is said to stand elsewhere: its epipolar lines lead astray."""
    turned = Pose.exp(torch.tensor([0.0, 0.0, 0.7, 0.4, 0.0, 0.0], dtype=torch.float64))
    elsewhere = replace(views[1], map_from_cam=views[1].map_from_cam @ turned)
    points = views[0].points_at(torch.from_numpy(keypoints[0]))
    honest = len(find_points(points, views[0], views[1]).point)
    assert len(find_points(points, views[0], elsewhere).point) < 0.1 * honest
    behind = Pose.exp(torch.tensor([0.0, np.pi, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    backwards = replace(views[1], map_from_cam=views[1].map_from_cam @ behind)
    assert len(find_points(points, views[0], backwards).point) < 0.1 * honest


def test_a_view_without_motion_gives_no_depth_and_no_error(views: list[DenseView], keypoints: list[np.ndarray]) -> None:
    points = views[0].points_at(torch.from_numpy(keypoints[0]))
    found = find_points(points, views[0], views[0])
    assert bool(torch.isfinite(found.uv_px).all())
    assert len(find_points(points[torch.zeros(0, dtype=torch.long)], views[0], views[1]).point) == 0


def test_spots_are_new_places_and_links_lead_to_them(
    views: list[DenseView], keypoints: list[np.ndarray], frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [np.arange(len(uv_px)) for uv_px in keypoints]
    pairs = [(0, 1), (0, 2), (1, 2)]
    found, links = find_spots(keypoints, wanted, pairs, lambda i: views[i], lambda i, n: None)
    places = [np.concatenate([uv_px, mine.uv_px]) for uv_px, mine in zip(keypoints, found, strict=True)]
    for uv_px, mine in zip(keypoints, found, strict=True):
        assert len(mine) == len(mine.coarse) == len(mine.fine) > 20
        gap = np.linalg.norm(uv_px[:, None] - mine.uv_px[None], axis=2).min(0)
        assert gap.min() > SAME_PX - 1e-9
    error_px = []
    for (a, b), (i, j) in zip(links.views, links.places, strict=True):
        there, shown = true_places(places[a][i : i + 1], frames[a], frames[b])
        if bool(shown[0]):
            error_px.append(np.linalg.norm(places[b][j] - there[0].numpy()))
    assert len(error_px) > 200 and np.mean(np.array(error_px) < 3) > 0.9
    described: list[int] = []
    monkeypatch.setattr(spots, "CACHE_BYTES", 0)

    def describe(index: int) -> DenseView:
        described.append(index)
        return views[index]

    again, same = find_spots(keypoints, wanted, pairs, describe, lambda i, n: None)
    np.testing.assert_array_equal(same.places, links.places)
    assert len(described) > len(views), "two views at a time are kept at least, and no more"
    assert all(np.array_equal(a.uv_px, b.uv_px) for a, b in zip(again, found, strict=True))


def test_sparse_keyframes_give_more_landmarks_and_right_ones(frames: list[Frame], network: FeatureNetwork) -> None:
    config = with_values(BuilderConfig(), {"keyframe_motion": 0.0, "points_per_keyframe": 400})
    made = MapBuilder(network, config)
    for frame in frames:
        made.add(replace(frame, depth_m=None))
    kept = list(made._keyframes)
    views = [builder._view(keyframe) for keyframe in kept]
    depths, cameras = [keyframe.depth for keyframe in kept], [keyframe.camera for keyframe in kept]
    nothing = [torch.zeros(len(depth), dtype=torch.bool) for depth in depths]
    tracks = [track_keypoints(views, nothing, 2.5, lambda *_: None, how) for how in (None, made._describe)]
    (_, matched, _), (sightings, guided, _) = (
        place_landmarks(mine, views, depths, cameras, config, lambda *_: None) for mine in tracks
    )
    assert len(guided) > 1.5 * len(matched)
    wall_distance = torch.stack([guided[:, 0].abs(), guided[:, 1].abs()]).amin(0)
    assert (wall_distance < 0.05).double().mean() > 0.9, "landmarks lie on the walls"
    map_ = made.build()
    assert map_.landmark_count == len(guided)
    placed = sum(len(seen.place) for seen in sightings)
    assert 0.95 * placed < map_.observation_count <= placed


def test_a_keyframe_gives_its_image_back(frames: list[Frame], network: FeatureNetwork) -> None:
    """Losslessly: what is described anew is what was described."""
    made = MapBuilder(network, BuilderConfig())
    made.add(frames[0])
    np.testing.assert_array_equal(made._keyframes[0].image_rgb(), frames[0].image_rgb)
