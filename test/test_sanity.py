"""Input that contradicts itself is refused by name: wrong poses, calibration or depth. In a rendered corner."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import ros_world
import torch

from nre_ros.config import BuilderConfig, with_values
from nre_ros.errors import MapError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Camera, Pose
from nre_ros.mapping import MapBuilder
from nre_ros.mapping.builder import Keyframe

CONFIG = with_values(BuilderConfig(), {"points_per_keyframe": 500, "keyframe_motion": 0.0})
BODY_FROM_OPTICAL = Pose(
    torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
)


def walk(index: float) -> Pose:
    """map_from_cam: around the corner, 2 m away, nodding and rolling a little as a walking person does."""
    azimuth = -0.3 - 0.1 * index
    centre = torch.tensor([2.2 * math.cos(azimuth), 2.2 * math.sin(azimuth), 0.1 * math.sin(index)])
    yaw = Pose.exp(torch.tensor([0, 0, azimuth + math.pi, 0, 0, 0], dtype=torch.float64))
    sway = Pose.exp(torch.tensor([0.05 * math.sin(2 * index), 0.08 * math.cos(index), 0, 0, 0, 0], dtype=torch.float64))
    return Pose((yaw @ sway @ BODY_FROM_OPTICAL).rotation, centre.double())


@pytest.fixture(scope="module")
def keyframes(network: FeatureNetwork) -> list[Keyframe]:
    kept: list[Keyframe] = []
    builder = MapBuilder(network, CONFIG, keyframes=kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ros_world, "pose", walk)
        for index in range(12):
            builder.add(ros_world.frame(index, index * 10**9, noise_seed=index))
    assert len(kept) >= 10
    return kept


def built(network: FeatureNetwork, keyframes: list[Keyframe]) -> int:
    return MapBuilder(network, CONFIG, keyframes=keyframes).build().landmark_count


def posed(keyframe: Keyframe, map_from_cam: Pose) -> Keyframe:
    return replace(keyframe, map_from_cam=map_from_cam)


def seen_by(keyframe: Keyframe, camera: Camera) -> Keyframe:
    return replace(keyframe, camera=camera)


def deep(keyframe: Keyframe, factor: float) -> Keyframe:
    return replace(keyframe, depth=keyframe.depth * factor)


def test_right_input_is_let_through_with_depth_and_without(network: FeatureNetwork, keyframes: list[Keyframe]) -> None:
    for given, least in ((keyframes, 500), ([deep(k, torch.nan) for k in keyframes], 300)):
        builder = MapBuilder(network, CONFIG, keyframes=given)
        map_ = builder.build()
        assert map_.landmark_count > least
        assert map_.keyframe_count == len(keyframes) and builder.remarks == []


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1000.0, "1000 times .* millimetres were taken for metres"),
        (0.001, "0.001 times .* metres were taken for millimetres"),
        (5.0, "5 times .* 5000 counts a metre"),
        (1.7, "1.7 times .* another unit than the poses"),
    ],
)
def test_depth_in_the_wrong_unit_is_named(
    network: FeatureNetwork, keyframes: list[Keyframe], factor: float, said: str
) -> None:
    with pytest.raises(MapError) as error:
        built(network, [deep(k, factor) for k in keyframes])
    for part in said.split(" .* "):
        number = part.split()[0]
        assert part.removeprefix(number) in str(error.value)
    measured = float(str(error.value).split()[3])
    assert measured == pytest.approx(factor, rel=0.05)


def test_poses_of_other_axes_and_inverse_poses_are_named(network: FeatureNetwork, keyframes: list[Keyframe]) -> None:
    for change, said in (
        (lambda pose: pose.inverse(), "inverse"),
        (lambda pose: pose @ BODY_FROM_OPTICAL.inverse(), "body axes (x forward, y left, z up)"),
        (lambda pose: (pose @ BODY_FROM_OPTICAL.inverse()).inverse(), "inverse poses of body axes"),
    ):
        with pytest.raises(MapError, match="poses or calibration do not belong to the images") as error:
            built(network, [posed(k, change(k.map_from_cam)) for k in keyframes])
        assert said in str(error.value)


def test_poses_of_other_images_are_refused(network: FeatureNetwork, keyframes: list[Keyframe]) -> None:
    """As when the stamps of poses and images are off by seconds, or in another order."""
    poses = [k.map_from_cam for k in keyframes]
    with pytest.raises(MapError, match="do not belong to the images"):
        built(network, [posed(k, pose) for k, pose in zip(keyframes, poses[6:] + poses[:6], strict=True)])


def test_a_wrong_calibration_is_named(network: FeatureNetwork, keyframes: list[Keyframe]) -> None:
    camera = keyframes[0].camera
    for factor in (0.67, 1.5):
        wrong = replace(camera, fx=camera.fx * factor, fy=camera.fy * factor)
        with pytest.raises(MapError, match="focal length in the calibration is about"):
            built(network, [deep(seen_by(k, wrong), torch.nan) for k in keyframes])
    half = replace(camera, fx=camera.fx / 2, fy=camera.fy / 2, cx=camera.cx / 2, cy=camera.cy / 2)
    with pytest.raises(MapError, match="do not belong to the images"):
        built(network, [seen_by(k, half) for k in keyframes])


def test_small_errors_of_real_poses_are_let_through(network: FeatureNetwork, keyframes: list[Keyframe]) -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1e-3, 1e-3, 1e-3, 5e-3, 5e-3, 5e-3], dtype=torch.float64)  # rad, m

    def shaken(pose: Pose) -> Pose:
        return pose @ Pose.exp(spread * torch.randn(6, generator=generator, dtype=torch.float64))

    assert built(network, [posed(k, shaken(k.map_from_cam)) for k in keyframes]) > 200


def off(pose: Pose, metres: float) -> Pose:
    """To the side, as seen by the camera."""
    return pose @ Pose.exp(torch.tensor([0, 0, 0, metres, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize(("wrong", "depth"), [((6,), True), ((3, 8), False)])
def test_single_wrong_poses_are_named_and_left_out(
    network: FeatureNetwork, keyframes: list[Keyframe], wrong: tuple[int, ...], depth: bool
) -> None:
    """Their copies of the walls would lie 0.3 m from these."""
    given = [posed(k, off(k.map_from_cam, 0.3)) if i in wrong else k for i, k in enumerate(keyframes)]
    builder = MapBuilder(network, CONFIG, keyframes=given if depth else [deep(k, torch.nan) for k in given])
    map_ = builder.build()
    assert len(builder.remarks) == len(wrong)
    for i, remark in zip(wrong, builder.remarks, strict=True):
        assert f"at {i}.000 s" in remark
        assert float(remark.split(" lies ")[1].split(" m")[0]) == pytest.approx(0.3, abs=0.03)
    assert map_.keyframe_stamps_ns.tolist() == [k.stamp_ns for i, k in enumerate(keyframes) if i not in wrong]
    x, y, _ = map_.arrays.xyz_map.unbind(1)
    off_the_walls = torch.minimum(x.abs(), y.abs())
    assert float((off_the_walls > 0.1).double().mean()) < (0.01 if depth else 0.03)


def test_too_many_wrong_poses_are_refused(network: FeatureNetwork, keyframes: list[Keyframe]) -> None:
    given = [posed(k, off(k.map_from_cam, 0.3)) if i in (2, 6, 10) else k for i, k in enumerate(keyframes)]
    with pytest.raises(MapError, match=r"3 of 12 keyframes have poses that contradict|do not belong to the images"):
        built(network, given)
