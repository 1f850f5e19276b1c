"""From posed frames to landmarks: where they must lie, who may see them, and what makes no map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import ros_world
import torch
from torch import Tensor

from nre_ros.config import BuilderConfig, with_values
from nre_ros.errors import CalibrationError, MapError, NreError, RecordingError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Pose
from nre_ros.mapping import Map, MapBuilder
from nre_ros.mapping.keypoints import Keypoints, detect, match
from nre_ros.mapping.retrieval import aggregate, learn_vocabulary, nearest_keyframes
from nre_ros.mapping.tracks import View, track_keypoints
from nre_ros.mapping.triangulation import triangulate, two_view_depths, widest_angle_deg
from nre_ros.recordings.frame import Frame

CONFIG = BuilderConfig()
EVERY_FRAME = with_values(CONFIG, {"keyframe_motion": 0.0})
FOCAL_PX = 500.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rays_of(xyz: Tensor, views: int, noise_px: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Tracks (T * views,), origins and unit rays to points (T, 3) from cameras around them."""
    origin = torch.randn((views, 3), generator=generator(1), dtype=torch.float64)
    track = torch.arange(len(xyz)).repeat_interleave(views)
    origin = origin.repeat(len(xyz), 1)
    ray = torch.nn.functional.normalize(xyz[track] - origin, dim=1)
    noise = noise_px / FOCAL_PX * torch.randn(ray.shape, generator=generator(2), dtype=torch.float64)
    return track, origin, torch.nn.functional.normalize(ray + noise, dim=1)


def solve(track: Tensor, origin: Tensor, ray: Tensor, count: int) -> Tensor:
    return triangulate(track, origin, ray, count, torch.full((len(track),), FOCAL_PX, dtype=torch.float64), 2.0)


def points(count: int, distance: float = 6.0) -> Tensor:
    xyz = torch.randn((count, 3), generator=generator(), dtype=torch.float64)
    return xyz + torch.tensor([0.0, 0.0, distance], dtype=torch.float64)


def test_rays_without_error_meet_in_their_points() -> None:
    xyz = points(100)
    for views in (2, 5):
        torch.testing.assert_close(solve(*rays_of(xyz, views), 100), xyz, atol=1e-8, rtol=0)


def test_a_third_of_the_rays_may_be_wrong() -> None:
    xyz = points(200)
    track, origin, ray = rays_of(xyz, 6, noise_px=0.5)
    wrong = torch.arange(len(track)) % 6 < 2
    elsewhere = torch.nn.functional.normalize(
        ray + 0.3 * torch.randn(ray.shape, generator=generator(3), dtype=torch.float64), dim=1
    )
    error = (solve(track, origin, torch.where(wrong[:, None], elsewhere, ray), 200) - xyz).norm(dim=1)
    clean = (solve(track, origin, ray, 200) - xyz).norm(dim=1)
    assert error.median() < 2 * clean.median()
    assert (error < 0.1).double().mean() > 0.95


def test_the_order_of_rays_and_the_unit_do_not_matter() -> None:
    xyz = points(50)
    track, origin, ray = rays_of(xyz, 4, noise_px=1.0)
    one = solve(track, origin, ray, 50)
    torch.testing.assert_close(solve(track, 1000 * origin, ray, 50) / 1000, one, atol=1e-6, rtol=0)
    shuffled = torch.randperm(len(track), generator=generator())
    error = (solve(track[shuffled], origin[shuffled], ray[shuffled], 50) - one).norm(dim=1)
    assert error.median() < 1e-6 and error.max() < 0.1


def test_parallel_and_single_rays_fix_no_point() -> None:
    axis = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    origin = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0]], dtype=torch.float64)
    xyz = solve(torch.tensor([0, 0, 1]), origin, axis.expand(3, 3), 3)
    assert bool(torch.isnan(xyz).all())


def test_widest_angle() -> None:
    origin = torch.tensor([[-1.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64)
    xyz = torch.tensor([[0.0, 0.0, 10.0]], dtype=torch.float64)
    angle = widest_angle_deg(torch.zeros(3, dtype=torch.long), origin, xyz)
    assert float(angle) == pytest.approx(2 * np.rad2deg(np.arctan(0.1)), rel=1e-3)


def test_two_view_depths() -> None:
    xyz_a = points(30)
    a_from_b = Pose.exp(torch.tensor([0.05, -0.1, 0.02, 0.8, 0.1, -0.2], dtype=torch.float64))
    xyz_b = a_from_b.inverse().transform(xyz_a)
    bearings = [torch.nn.functional.normalize(xyz, dim=1) for xyz in (xyz_a, xyz_b)]
    torch.testing.assert_close(two_view_depths(*bearings, a_from_b), xyz_a[:, 2], atol=1e-8, rtol=0)
    assert len(two_view_depths(*bearings, Pose.identity())) == 0


def synthetic_views(count: int = 6, points_each: int = 200) -> list[View]:
    """Views of the same points with descriptors that are alike in groups, so that matches conflict."""
    xyz, views = points(points_each), []
    common = torch.randn((points_each // 2, 128), generator=generator(4)).repeat(2, 1)
    for i in range(count):
        map_from_cam = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.3 * i, 0.0, 0.0], dtype=torch.float64))
        xyz_cam = map_from_cam.inverse().transform(xyz)
        uv_px = xyz_cam[:, :2] / xyz_cam[:, 2:] * FOCAL_PX
        own = common + 0.3 * torch.randn((points_each, 128), generator=generator(10 + i))
        keypoints = Keypoints(uv_px.numpy(), torch.nn.functional.normalize(own, dim=1))
        views.append(View(keypoints, torch.nn.functional.normalize(xyz_cam, dim=1), map_from_cam, FOCAL_PX))
    return views


def test_a_track_never_holds_two_keypoints_of_one_view() -> None:
    views = synthetic_views()
    done: list[tuple[int, int]] = []
    unknown = [torch.zeros(200, dtype=torch.bool)] * len(views)

    def tell(stage: str, i: int, n: int) -> None:
        if stage == "matching":
            done.append((i, n))

    tracks = track_keypoints(views, unknown, 20.0, tell)
    track, keypoint = tracks.track, tracks.place
    view, index = keypoint // 200, keypoint % 200
    assert len(np.unique(track)) > 100
    assert len(np.unique(keypoint)) == len(keypoint)
    assert len(np.unique(np.stack([track, view]), axis=1).T) == len(track)
    assert np.bincount(track).min() >= 2
    same = [len(set(index[track == t])) == 1 for t in np.unique(track)]
    assert np.mean(same) > 0.9
    assert [i for i, _ in done] == list(range(1, len(done) + 1)) and done[-1][0] == done[-1][1]


def test_matches_are_mutual_and_unambiguous() -> None:
    rng = torch.Generator().manual_seed(0)
    descriptors = torch.nn.functional.normalize(torch.randn((50, 128), generator=rng), dim=1)
    order = torch.randperm(50, generator=rng)
    a = Keypoints(np.zeros((50, 2)), descriptors)
    pairs, ratios = match(a, Keypoints(np.zeros((50, 2)), descriptors[order]))
    assert sorted(pairs[:, 0]) == list(range(50))
    np.testing.assert_array_equal(order.numpy()[pairs[:, 1]], pairs[:, 0])
    assert ratios.max() < 0.01
    twice = Keypoints(np.zeros((100, 2)), torch.cat([descriptors, descriptors]))
    assert len(match(a, twice)[0]) == 0
    assert len(match(a, Keypoints(np.zeros((0, 2)), torch.zeros((0, 128))))[0]) == 0


def test_keypoints_are_spread_and_apart() -> None:
    image = ros_world.frame(0, 0).image_rgb
    keypoints = detect(image, 200)
    assert len(keypoints) == 200
    distance = np.linalg.norm(keypoints.uv_px[:, None] - keypoints.uv_px[None], axis=2) + 1e3 * np.eye(200)
    assert distance.min() > 2
    per_cell = np.histogram2d(*keypoints.uv_px.T, bins=[4, 3], range=[[0, 320], [0, 240]])[0]
    assert (per_cell > 5).mean() > 0.9
    torch.testing.assert_close(keypoints.descriptors.norm(dim=1), torch.ones(200), atol=1e-4, rtol=0)
    assert len(detect(np.full((240, 320, 3), 128, np.uint8), 200)) == 0


def test_retrieval_finds_the_keyframe_itself() -> None:
    contexts = [
        torch.nn.functional.normalize(torch.randn((16, 6, 8), generator=generator(i)), dim=0) for i in range(10)
    ]
    vocabulary, again = (learn_vocabulary(iter(contexts), len(contexts)) for _ in range(2))
    assert torch.equal(vocabulary.axes, again.axes) and torch.equal(vocabulary.centres, again.centres)
    stored = torch.stack([aggregate(context, vocabulary) for context in contexts])
    torch.testing.assert_close(stored.norm(dim=1), torch.ones(10))
    for i, descriptor in enumerate(stored):
        indices, similarity = nearest_keyframes(descriptor, stored.half(), 3)
        assert indices[0] == i and similarity[0] == pytest.approx(1.0, abs=1e-2)
        assert bool((similarity.diff() <= 0).all())
    assert len(nearest_keyframes(stored[0], stored, 99)[0]) == 10


def frames(count: int = 5, depth: bool = True) -> list[Frame]:
    made = [ros_world.frame(index, index * 10**9, noise_seed=index) for index in range(count)]
    return made if depth else [replace(frame, depth_m=None) for frame in made]


@pytest.fixture(scope="module", params=[True, False], ids=["depth", "no depth"])
def built(request: pytest.FixtureRequest, network: FeatureNetwork) -> Map:
    builder = MapBuilder(network, EVERY_FRAME, frame_id="corner", unit="metre")
    assert [builder.add(frame) for frame in frames(depth=request.param)] == [True] * 5
    return builder.build()


def test_landmarks_lie_on_the_walls(built: Map) -> None:
    """x = 0 and y = 0, some 2 m away."""
    off_m = np.abs(built.xyz_map[:, :2]).min(1)
    assert built.landmark_count > 300
    assert np.median(off_m) < 0.03
    assert np.quantile(off_m, 0.9) < 0.15
    assert 1.5 < built.median_depth < 2.5


def test_observations_are_where_landmarks_project(built: Map) -> None:
    cam_from_map = built.map_from_keyframe.inverse()
    arrays = built.arrays
    for k in range(built.keyframe_count):
        seen = built.observations_of(k)
        landmarks = arrays.landmark[seen].long()
        assert len(torch.unique(landmarks)) == len(landmarks) > 50
        uv_px, visible = ros_world.CAMERA.project(cam_from_map[k].transform(arrays.xyz_map[landmarks]))
        assert bool(visible.all())
        error = (uv_px - arrays.uv_px[seen]).norm(dim=1)
        assert error.median() < 0.5
        assert error.max() < CONFIG.max_reprojection_px + 1e-3
    assert len(torch.unique(arrays.landmark)) == built.landmark_count


def test_the_map_knows_its_keyframes_and_network(built: Map, network: FeatureNetwork) -> None:
    assert built.frame_id == "corner" and built.unit == "metre" and built.cameras == (ros_world.CAMERA,)
    assert (built.network_name, built.network_hash) == (network.name, network.weights_hash)
    assert built.keyframe_stamps_ns.tolist() == [i * 10**9 for i in range(5)]
    for i in range(5):
        torch.testing.assert_close(built.map_from_keyframe[i].matrix(), ros_world.pose(i).matrix())


def test_without_depth_landmarks_are_seen_at_least_twice(network: FeatureNetwork) -> None:
    builder = MapBuilder(network, with_values(EVERY_FRAME, {"min_track_length": 3}))
    for frame in frames(depth=False):
        builder.add(frame)
    assert builder.build().arrays.landmark.bincount().min() >= 3


def test_a_camera_at_rest_makes_one_keyframe(network: FeatureNetwork) -> None:
    builder = MapBuilder(network, CONFIG)
    assert builder.add(ros_world.frame(0, 0))
    assert not builder.add(ros_world.frame(0, 10**9, noise_seed=1))
    assert builder.keyframe_count == len(builder.map_from_keyframe) == 1


def test_building_may_go_on(network: FeatureNetwork) -> None:
    """A map half-way does not change the one at the end."""
    one, other = (MapBuilder(network, EVERY_FRAME) for _ in range(2))
    for i, frame in enumerate(frames(3)):
        one.add(frame)
        other.add(frame)
        if i == 1:
            assert other.build().keyframe_count == 2
    assert one.build().digest == other.build().digest


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"map_from_cam": None}, RecordingError, "has no pose"),
        ({"map_from_cam": Pose(torch.full((3, 3), torch.nan), torch.zeros(3))}, RecordingError, "NaN"),
        ({"map_from_cam": Pose(torch.eye(3), torch.tensor([0.0, torch.inf, 0.0]))}, RecordingError, "infinity"),
        ({"depth_m": np.ones((120, 160), np.float32)}, RecordingError, "depth of frame a.png is 160x120"),
        ({"image_rgb": np.zeros((200, 320, 3), np.uint8)}, CalibrationError, "a.png is 320x200 pixels"),
    ],
)
def test_bad_frames_are_refused_and_leave_no_trace(
    network: FeatureNetwork, changes: dict[str, object], kind: type[NreError], said: str
) -> None:
    builder = MapBuilder(network, CONFIG)
    with pytest.raises(kind, match=said):
        builder.add(replace(ros_world.frame(0, 0), name="a.png", **changes))  # type: ignore[arg-type]
    assert builder.keyframe_count == 0
    assert builder.add(ros_world.frame(0, 0))


def test_unusable_depth_is_as_good_as_none(network: FeatureNetwork) -> None:
    """Holes of every kind: zero, NaN, infinite, negative."""
    holes = np.tile(np.array([0.0, np.nan, np.inf, -1.0], np.float32).repeat(20), (240, 4))
    maps = []
    for depth_m in (None, holes):
        builder = MapBuilder(network, EVERY_FRAME)
        for frame in frames(2, depth=False):
            builder.add(replace(frame, depth_m=depth_m))
        maps.append(builder.build())
    assert maps[0].digest == maps[1].digest


def test_too_little_makes_no_map(network: FeatureNetwork) -> None:
    builder = MapBuilder(network, EVERY_FRAME)
    with pytest.raises(MapError, match="at least 2 keyframes, got 0"):
        builder.build()
    builder.add(ros_world.frame(0, 0))
    with pytest.raises(MapError, match="at least 2 keyframes, got 1"):
        builder.build()


def test_textureless_images_make_no_map(network: FeatureNetwork) -> None:
    builder = MapBuilder(network, EVERY_FRAME)
    grey = np.full((240, 320, 3), 128, np.uint8)
    for frame in frames(3):
        builder.add(replace(frame, image_rgb=grey))
    with pytest.raises(MapError):
        builder.build()
