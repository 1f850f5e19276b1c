"""Which landmarks an image is asked about: a share of every retrieved keyframe, so that no place crowds out another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import ros_world
import torch

from nre_ros.config import LocalizerConfig, with_values
from nre_ros.errors import MapError
from nre_ros.features import DenseFeatures, FeatureNetwork
from nre_ros.geometry import pose_error
from nre_ros.localization import Localizer, Status
from nre_ros.localization.candidates import describe, landmarks_of, landmarks_to_ask, most_certain
from nre_ros.localization.localizer import _within
from nre_ros.localization.neighbourhood import PATIENCE, WELL_SEEN, landmarks_in_view
from nre_ros.mapping import Map
from nre_ros.mapping.descriptors import mean_of_each, quantised, restored

CPU = torch.device("cpu")
AWAY = torch.tensor([0.0, 20.0, 0.0], dtype=torch.float64)
"""From the corner to its double."""


@pytest.fixture(scope="module")
def seen(network: FeatureNetwork) -> DenseFeatures:
    return network.extract(ros_world.frame(0.5, 0, noise_seed=1).image_rgb)


def with_double(map_: Map, keyframes: int) -> Map:
    """The map with a copy of its first keyframes and all landmarks, ``AWAY``: two places that look the same."""
    a = map_.arrays
    some, observations = slice(0, keyframes), slice(0, int(a.keyframe_start[keyframes]))
    poses = a.keyframe_pose.clone()[some]
    poses[:, :3, 3] += AWAY
    landmark_wise = {n: torch.cat([getattr(a, n)] * 2) for n in ("coarse", "coarse_scale", "fine", "fine_scale")}
    others = ("keyframe_stamp_ns", "keyframe_camera", "keyframe_global")
    arrays = replace(
        a,
        xyz_map=torch.cat([a.xyz_map, a.xyz_map + AWAY]),
        keyframe_pose=torch.cat([a.keyframe_pose, poses]),
        keyframe_start=torch.cat([a.keyframe_start, a.keyframe_start[-1] + a.keyframe_start[1 : keyframes + 1]]),
        landmark=torch.cat([a.landmark, a.landmark[observations] + map_.landmark_count]),
        uv_px=torch.cat([a.uv_px, a.uv_px[observations]]),
        **{name: torch.cat([getattr(a, name), getattr(a, name)[some]]) for name in others},
        **landmark_wise,
    )
    return replace(map_, arrays=arrays, file=None)


@pytest.mark.parametrize("keyframes", [3, 2])
def test_two_places_that_look_alike_both_stay_hypotheses(
    corner_map: Map, network: FeatureNetwork, keyframes: int
) -> None:
    """Also where the second is seen by fewer keyframes than the first; and nothing is believed."""
    map_ = with_double(corner_map, keyframes)
    config = with_values(LocalizerConfig(), {"top_k": 8, "nre.max_points": 600})
    frame = ros_world.frame(0.5, 0, noise_seed=1)
    answer = Localizer(map_, network, config).localize(frame.image_rgb, frame.camera)
    assert answer.map_from_cam is not None and frame.map_from_cam is not None
    found = [answer.map_from_cam, *answer.hypotheses]
    there = replace(frame.map_from_cam, translation=frame.map_from_cam.translation + AWAY)
    for truth in (frame.map_from_cam, there):
        assert min(float(pose_error(pose, truth)[1]) for pose in found) < 0.25
    assert answer.status is Status.REJECTED, "either may be right"


def test_every_keyframe_has_its_share(corner_map: Map) -> None:
    """Two keyframes here and two of the double: half of the first landmarks each, none twice."""
    map_ = with_double(corner_map, 2)
    picked = map_.arrays.xyz_map[landmarks_of(map_, (0, 3, 2, 4))[:200]]
    double = (picked[:, 1] > 10).float().mean()
    assert len(picked) == 200 and 0.4 < double < 0.6
    assert len(torch.unique(picked, dim=0)) == 200


@pytest.mark.parametrize(("similarity", "share"), [((0.8, 0.8, 0.8, 0.79), 0.5), ((0.8, 0.8, 0.8, 0.6), None)])
def test_a_place_that_looks_alike_has_an_even_share(
    corner_map: Map, seen: DenseFeatures, similarity: tuple[float, ...], share: float | None
) -> None:
    """However few of its keyframes are there; one that does not has what the image answers clearly."""
    map_ = with_double(corner_map, 1)
    asked = landmarks_to_ask(map_, (0, 1, 2, 3), similarity, seen.coarse, 200, CPU)
    double = float((map_.arrays.xyz_map[asked][:, 1] > 10).double().mean())
    assert len(asked) == len(torch.unique(asked)) <= 200
    assert double == share if share else 0 < double < 0.5


def test_the_landmarks_in_view_are_asked_about(corner_map: Map, seen: DenseFeatures) -> None:
    """Of landmarks that are there and others that are nowhere, those that are there are chosen."""
    arrays = corner_map.arrays
    nowhere = torch.randn(arrays.coarse.shape, generator=torch.Generator().manual_seed(0))
    coarse, coarse_scale = quantised(torch.nn.functional.normalize(nowhere, dim=1))
    both = replace(
        arrays,
        xyz_map=torch.cat([arrays.xyz_map, arrays.xyz_map + AWAY]),
        coarse=torch.cat([arrays.coarse, coarse]),
        coarse_scale=torch.cat([arrays.coarse_scale, coarse_scale]),
        fine=torch.cat([arrays.fine] * 2),
        fine_scale=torch.cat([arrays.fine_scale] * 2),
    )
    map_ = replace(corner_map, arrays=both, file=None)
    pool = torch.randperm(2 * corner_map.landmark_count, generator=torch.Generator().manual_seed(1))
    chosen = most_certain(map_, pool, seen.coarse, 100, CPU)
    assert float((chosen < corner_map.landmark_count).double().mean()) > 0.95
    order = [int((pool == index).nonzero()) for index in chosen]
    assert order == sorted(order)


def test_what_a_pose_is_refined_on_is_spread_and_well_seen(corner_map: Map) -> None:
    """Of those seen most no part of the image has two more than another that has some left; in each part those seen
    less come later, and altogether three times as late."""
    frame = ros_world.frame(0.5, 0, noise_seed=1)
    pose, camera = frame.map_from_cam, frame.camera
    assert pose is not None
    keyframes = range(corner_map.keyframe_count)
    there = landmarks_in_view(corner_map, keyframes, pose, camera, 10**6)
    chosen = landmarks_in_view(corner_map, keyframes, pose, camera, len(there) // 3)
    assert len(chosen) == len(there) // 3 and set(chosen.tolist()) < set(there.tolist())
    sightings = corner_map.sightings.clamp(max=WELL_SEEN)
    uv_px, _ = camera.project(pose.inverse().transform(corner_map.arrays.xyz_map))
    column, row = (uv_px / torch.tensor([camera.width / 8, camera.height / 6])).nan_to_num(0).long().unbind(1)
    part = row.clamp(0, 5) * 8 + column.clamp(0, 7)

    def count(landmarks: torch.Tensor, seen: int) -> torch.Tensor:
        return torch.bincount(part[landmarks[sightings[landmarks] == seen]], minlength=48)

    best, all_best = count(chosen, WELL_SEEN), count(there, WELL_SEEN)
    assert int(best[best < all_best].min()) >= int(best.max()) - 1
    less = count(chosen, WELL_SEEN - 1)
    assert 0 < int(less.sum()) < int(best.sum()) and int(less.max()) * PATIENCE <= int(best.max()) + PATIENCE
    left = there[~torch.isin(there, chosen)]
    for each in range(48):
        here, unused = (sightings[some[part[some] == each]] for some in (chosen, left))
        assert not len(here) or not len(unused) or int(here.min()) >= int(unused.max())


def test_candidates_carry_what_the_map_holds_of_them(corner_map: Map, seen: DenseFeatures) -> None:
    picked = describe(corner_map, landmarks_of(corner_map, (2, 1))[:50], seen, CPU)
    arrays = corner_map.arrays
    index = [int((arrays.xyz_map == xyz).all(1).nonzero()[0]) for xyz in picked.xyz_map]
    observed = torch.cat([arrays.landmark[corner_map.observations_of(k)] for k in (2, 1)])
    assert set(index) <= set(observed.tolist())
    for actual, stored in ((picked.coarse, arrays.coarse), (picked.fine, arrays.fine)):
        torch.testing.assert_close(actual.norm(dim=1), torch.ones(50))
        expected = torch.nn.functional.normalize(stored[index].float(), dim=1)
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_a_damaged_landmark_is_an_error_not_a_crash(corner_map: Map, seen: DenseFeatures, wrong: int) -> None:
    """Large maps are not read whole at load."""
    landmark = corner_map.arrays.landmark.clone()
    landmark[corner_map.observations_of(2)] = wrong
    bad = replace(corner_map, arrays=replace(corner_map.arrays, landmark=landmark), file=None)
    with pytest.raises(MapError, match="map check"):
        describe(bad, landmarks_of(bad, (2, 1))[:100], seen, CPU)
    adrift = replace(corner_map.arrays, xyz_map=torch.full_like(corner_map.arrays.xyz_map, torch.nan))
    with pytest.raises(MapError, match="map check"):
        describe(replace(corner_map, arrays=adrift, file=None), landmarks_of(corner_map, (2,)), seen, CPU)


def test_retrieval_stays_within_its_budget_on_the_device() -> None:
    stored, device = torch.zeros((1024, 1024), dtype=torch.float16), torch.device("meta")
    assert _within(2, stored, device).device == device
    assert _within(1, stored, device) is stored


def test_bytes_give_descriptors_back_to_half_a_step() -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.randn((200, 128), generator=rng) * torch.logspace(-6, 6, 200)[:, None]
    values[7] = 0
    stored, scale = quantised(values)
    assert stored.dtype is torch.int8 and scale.dtype is torch.float32
    assert bool(((restored(stored, scale) - values).abs() <= 0.501 * scale[:, None]).all())
    assert bool((torch.nn.functional.cosine_similarity(restored(stored, scale), values)[:7] > 0.9999).all())


def test_means_are_of_all_keyframes() -> None:
    rows = torch.arange(12.0).view(6, 2)
    parts = [(rows[:2], torch.tensor([0, 1])), (rows[:0], torch.tensor([], dtype=torch.long))]
    parts += [(rows[2:], torch.tensor([1, 1, 0, 2]))]
    expected = np.stack([rows[[0, 4]].mean(0), rows[[1, 2, 3]].mean(0), rows[5]])
    np.testing.assert_allclose(mean_of_each(parts, 3), expected)
