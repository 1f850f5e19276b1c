"""Messages and back; the covariance against sampled poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
from geometry_msgs.msg import Pose as PoseMessage
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from nre_ros.errors import RecordingError
from nre_ros.evaluation.replayed import camera_covariance
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import TransformError
from nre_ros.recordings.compressed import encode_png
from nre_ros.ros import conversions


def random_pose(generator: torch.Generator, spread: float = 2.0) -> Pose:
    return Pose.exp(spread * torch.randn(6, generator=generator, dtype=torch.float64))


def repeated(pose: Pose, count: int) -> Pose:
    return Pose(pose.rotation.expand(count, 3, 3), pose.translation.expand(count, 3))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_survive_to_the_nanosecond(stamp_ns):
    assert conversions.stamp_to_ns(conversions.stamp_from_ns(stamp_ns)) == stamp_ns


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_poses_and_transforms_survive(twist):
    pose = Pose.exp(torch.tensor(twist, dtype=torch.float64))
    as_pose = conversions.pose_from_message(conversions.pose_to_message(pose))
    as_transform = conversions.pose_from_transform(conversions.transform_stamped("map", "odom", pose, 5))
    for back in (as_pose, as_transform):
        torch.testing.assert_close(back.matrix(), pose.matrix(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_poses_that_are_none_are_refused(bad):
    message = PoseMessage()
    message.position.x = bad
    with pytest.raises(TransformError, match="NaN or infinity"):
        conversions.pose_from_message(message)


def test_a_zero_quaternion_is_refused():
    message = PoseMessage()
    message.orientation.w = 0.0
    with pytest.raises(TransformError, match="length 0"):
        conversions.pose_from_message(message)


def test_covariance_is_that_of_sampled_poses():
    """Perturb the camera's pose as the localizer means it, and measure x y z and fixed-axis rotation of the base."""
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64) * torch.tensor([1e-3] * 3 + [1e-2] * 3)[:, None]
    covariance = root @ root.mT
    map_from_cam, out_from_cam = random_pose(generator), random_pose(generator)
    map_from_out = map_from_cam @ out_from_cam.inverse()

    count = 100_000
    twists = torch.randn(count, 6, generator=generator, dtype=torch.float64) @ root.mT
    out = repeated(map_from_cam, count) @ Pose.exp(twists) @ repeated(out_from_cam.inverse(), count)
    shift = out.translation - map_from_out.translation
    turn = Pose(out.rotation @ map_from_out.rotation.mT, torch.zeros(count, 3, dtype=torch.float64)).log()[:, :3]
    measured = torch.cat([shift, turn], -1).T.cov()

    got = torch.tensor(conversions.ros_covariance(covariance, map_from_out, out_from_cam), dtype=torch.float64).reshape(
        6, 6
    )
    scale = got.diagonal().sqrt()
    torch.testing.assert_close(got / scale / scale[:, None], measured / scale / scale[:, None], rtol=0, atol=0.02)
    assert torch.equal(got, got.mT)


def test_a_published_covariance_is_read_back_and_a_wrong_one_shows():
    """As the replay writes it down and the evaluation judges it."""
    generator = torch.Generator().manual_seed(5)
    root = 1e-2 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT
    map_from_cam, base_from_cam = random_pose(generator), random_pose(generator)
    map_from_base = map_from_cam @ base_from_cam.inverse()
    entry = {"xyz": map_from_base.translation.tolist(), "quat_xyzw": map_from_base.quat_xyzw().tolist()}

    def read_back(lever: Pose) -> torch.Tensor:
        published = conversions.ros_covariance(covariance, map_from_base, lever)
        return camera_covariance({**entry, "covariance": published}, base_from_cam)

    torch.testing.assert_close(read_back(base_from_cam), covariance, rtol=1e-5, atol=1e-9)
    without_lever = Pose(base_from_cam.rotation, torch.zeros(3, dtype=torch.float64))
    for wrong in (base_from_cam.inverse(), without_lever, Pose.identity()):
        assert float((read_back(wrong) - covariance).norm() / covariance.norm()) > 0.1


def test_covariance_of_the_camera_itself_only_turns_and_swaps():
    covariance = torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64))
    got = conversions.ros_covariance(covariance, Pose.identity(), Pose.identity())
    np.testing.assert_allclose(np.diag(np.reshape(got, (6, 6))), [4, 5, 6, 1, 2, 3])


def test_images_of_both_transports_give_the_same_pixels():
    rgb = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    padded = np.zeros((6, 40), np.uint8)
    padded[:, :30] = rgb[..., ::-1].reshape(6, 30)
    raw = Image(height=6, width=10, encoding="bgr8", step=40, data=padded.tobytes())
    compressed = CompressedImage(format="png", data=encode_png(rgb))
    np.testing.assert_array_equal(conversions.image_rgb_from_message(raw), rgb)
    np.testing.assert_array_equal(conversions.image_rgb_from_message(compressed), rgb)


def test_depth_is_in_metres():
    depth_mm = np.array([[0, 1500], [65535, 1]], np.uint16)
    message = Image(height=2, width=2, encoding="16UC1", step=4, data=depth_mm.tobytes())
    np.testing.assert_allclose(conversions.depth_from_message(message), [[np.nan, 1.5], [65.535, 0.001]])


def test_unknown_encodings_are_named():
    with pytest.raises(RecordingError, match="'hsv8' is unknown"):
        conversions.image_rgb_from_message(Image(height=1, width=1, encoding="hsv8", step=1, data=b"0"))


def test_point_clouds_hold_the_points_as_float32():
    xyz = np.random.default_rng(0).normal(size=(7, 3))
    cloud = conversions.point_cloud(xyz, "map", 5)
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
    ]
    read = np.frombuffer(cloud.data, np.float32).reshape(cloud.height * cloud.width, 3)
    np.testing.assert_array_equal(read, xyz.astype(np.float32))
    assert (cloud.row_step, cloud.point_step, cloud.header.frame_id, cloud.is_dense) == (84, 12, "map", True)
