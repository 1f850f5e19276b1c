"""Poses are a group with an exponential; cameras agree with their inverses and derivatives."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from nre_ros.errors import CalibrationError
from nre_ros.geometry import Camera, CellGrid, DistortionModel, Pose, pose_error
from nre_ros.geometry.pose import adjoint, hat

PLUMB_BOB = Camera(640, 480, 420.0, 425.0, 318.3, 241.7, distortion=(-0.28, 0.09, 0.001, -0.002, -0.01))
RATIONAL = Camera(
    640, 480, 420.0, 425.0, 318.3, 241.7, DistortionModel.RATIONAL, (0.3, 0.05, 0.001, -0.001, 0.01, 0.25, 0.02, 0.005)
)
EQUIDISTANT = Camera(640, 480, 280.0, 281.0, 318.3, 241.7, DistortionModel.EQUIDISTANT, (0.02, -0.01, 0.005, -0.001))
PINHOLE = Camera(640, 480, 420.0, 425.0, 318.3, 241.7)
CAMERAS = [PINHOLE, PLUMB_BOB, RATIONAL, EQUIDISTANT]
each_camera = pytest.mark.parametrize("camera", CAMERAS, ids=["pinhole", "plumb_bob", "rational", "equidistant"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_poses(count: int, seed: int = 0) -> Pose:
    """Rotations up to some 170 degrees."""
    twist = torch.randn((count, 6), generator=generator(seed), dtype=torch.float64)
    return Pose.exp(twist * (2.9 / twist[:, :3].norm(dim=1, keepdim=True).clamp_min(2.9)))


def assert_same(actual: Pose, expected: Pose, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual.matrix(), expected.matrix(), atol=tolerance, rtol=0)


def test_poses_are_a_group() -> None:
    a, b, c = (random_poses(50, seed) for seed in range(3))
    assert_same((a @ b) @ c, a @ (b @ c))
    assert_same(a @ a.inverse(), Pose.from_matrix(torch.eye(4, dtype=torch.float64).expand(50, 4, 4)))
    assert_same(a @ Pose.identity()[None], a)
    assert_same((a @ b).inverse(), b.inverse() @ a.inverse())
    torch.testing.assert_close((a @ b).matrix(), a.matrix() @ b.matrix())
    torch.testing.assert_close(torch.linalg.det(a.rotation), torch.ones(50, dtype=torch.float64))


def test_a_product_moves_points_as_its_factors_in_turn() -> None:
    a, b = random_poses(50), random_poses(50, 1)
    xyz = torch.randn((50, 7, 3), generator=generator(2), dtype=torch.float64)
    torch.testing.assert_close((a @ b).transform(xyz), a.transform(b.transform(xyz)))
    torch.testing.assert_close(a.inverse().transform(a.transform(xyz)), xyz)


def test_batches_multiply_with_single_poses() -> None:
    many, one = random_poses(5), random_poses(1, 1)[0]
    for i in range(5):
        assert_same((many @ one)[i], many[i] @ one)
        assert_same((one @ many)[i], one @ many[i])


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 1e-4, 0.0009, 0.0011, 0.1, 2.0, 3.1, math.pi - 1e-6])
def test_exp_and_log_are_inverse(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.randn((20, 3), generator=generator(), dtype=torch.float64), dim=1)
    moved = torch.randn((20, 3), generator=generator(1), dtype=torch.float64)
    twist = torch.cat([angle * axis, moved], 1)
    torch.testing.assert_close(Pose.exp(twist).log(), twist, atol=1e-9, rtol=0)
    matrix = torch.zeros((20, 4, 4), dtype=torch.float64)
    matrix[:, :3, :3], matrix[:, :3, 3] = hat(twist[:, :3]), twist[:, 3:]
    torch.testing.assert_close(Pose.exp(twist).matrix(), torch.linalg.matrix_exp(matrix), atol=1e-12, rtol=0)


def test_exp_has_a_gradient_at_zero() -> None:
    derivative = torch.autograd.functional.jacobian(lambda x: Pose.exp(x).matrix(), torch.zeros(6, dtype=torch.float64))
    expected = torch.zeros((4, 4, 6), dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    expected[:3, :3, :3] = hat(eye).permute(1, 2, 0)
    expected[:3, 3, 3:] = eye
    torch.testing.assert_close(derivative, expected)


def test_the_adjoint_carries_twists_from_right_to_left() -> None:
    pose = random_poses(50)
    twist = 0.5 * torch.randn((50, 6), generator=generator(3), dtype=torch.float64)
    moved = (adjoint(pose) @ twist[..., None])[..., 0]
    assert_same(pose @ Pose.exp(twist), Pose.exp(moved) @ pose)


def test_perturb_is_a_left_update_that_stays_a_rotation() -> None:
    pose, twist = random_poses(1)[0], torch.tensor([0.02, -0.01, 0.03, 0.1, 0.2, -0.1], dtype=torch.float64)
    assert_same(pose.perturb(twist), Pose.exp(twist) @ pose)
    for _ in range(1000):
        pose = pose.perturb(twist)
    torch.testing.assert_close(pose.rotation @ pose.rotation.mT, torch.eye(3, dtype=torch.float64), atol=1e-14, rtol=0)


def test_quaternions_round_trip() -> None:
    pose = random_poses(200)
    quat_xyzw = pose.quat_xyzw()
    torch.testing.assert_close(quat_xyzw.norm(dim=1), torch.ones(200, dtype=torch.float64))
    assert bool((quat_xyzw[:, 3] >= 0).all())
    assert_same(Pose.from_quat_xyzw(pose.translation, quat_xyzw), pose)
    assert_same(Pose.from_quat_xyzw(pose.translation, -3 * quat_xyzw), pose)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, -1), (1, -1, 1), (1e-9, 1, 0)])
def test_quaternions_of_half_turns(axis: tuple[float, ...]) -> None:
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    half_turn = Pose(2 * unit[:, None] * unit - torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    quat_xyzw = half_turn.quat_xyzw()
    torch.testing.assert_close((quat_xyzw[:3] @ unit).abs(), torch.tensor(1.0, dtype=torch.float64))
    assert_same(Pose.from_quat_xyzw(half_turn.translation, quat_xyzw), half_turn)
    assert_same(Pose.exp(half_turn.log()), half_turn, 1e-9)


@pytest.mark.parametrize("degrees", [1e-7, 1e-5, 1e-3, 1.0, 90.0, 179.0, 180.0])
def test_pose_error(degrees: float) -> None:
    truth = random_poses(1)[0]
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    turn = Pose.exp(torch.cat([axis * math.radians(degrees), torch.zeros(3, dtype=torch.float64)]))
    moved = torch.tensor([3.0, 0.0, -4.0], dtype=torch.float64)
    estimate = Pose(truth.rotation @ turn.rotation, truth.translation + moved)
    angle, distance = pose_error(estimate, truth)
    assert float(angle) == pytest.approx(degrees, rel=1e-5)
    assert float(distance) == pytest.approx(5.0)
    assert [float(v) for v in pose_error(truth, truth)] == [0.0, 0.0]


def image_grid(camera: Camera) -> Tensor:
    u, v = torch.meshgrid(torch.linspace(0, 639, 33), torch.linspace(0, 479, 25), indexing="xy")
    principal = torch.tensor([[camera.cx, camera.cy], [camera.cx + 1e-7, camera.cy], [camera.cx, camera.cy - 1e-5]])
    return torch.cat([torch.stack([u, v], -1).flatten(0, 1), principal]).double()


@each_camera
def test_unproject_then_project(camera: Camera) -> None:
    uv_px = image_grid(camera)
    bearing = camera.unproject(uv_px)
    torch.testing.assert_close(bearing.norm(dim=1), torch.ones(len(uv_px), dtype=torch.float64))
    for distance in (1e-3, 1.0, 1e4):
        again, visible = camera.project(bearing * distance)
        assert bool(visible.all())
        torch.testing.assert_close(again, uv_px, atol=1e-6, rtol=0)


@each_camera
def test_projection_is_opencvs(camera: Camera) -> None:
    xyz = points_before(camera).numpy()
    zero, k = np.zeros(3), camera.matrix()
    if camera.model is DistortionModel.EQUIDISTANT:
        theirs = cv2.fisheye.projectPoints(xyz[None], zero, zero, k, camera.coefficients())[0][0]
    else:
        theirs = cv2.projectPoints(xyz, zero, zero, k, camera.coefficients())[0][:, 0]
    np.testing.assert_allclose(camera.project(torch.from_numpy(xyz))[0].numpy(), theirs, atol=1e-6)


def points_before(camera: Camera) -> Tensor:
    """All over the image at all depths, some a hair from the optical axis."""
    bearing = camera.unproject(image_grid(camera)[:-3])
    depth = 10 ** (4 * torch.rand((len(bearing), 1), generator=generator(), dtype=torch.float64) - 2)
    near_axis = [[1e-3, 0.0, 2.0], [0.0, 1e-5, 2.0], [-1e-8, 1e-8, 0.5], [1e-4, -1e-4, 50.0]]
    return torch.cat([bearing * depth, torch.tensor(near_axis, dtype=torch.float64)])


@each_camera
def test_the_jacobian_is_autograds(camera: Camera) -> None:
    xyz = points_before(camera)
    uv_px, jacobian, visible = camera.project_with_jacobian(xyz)
    plain, plainly_visible = camera.project(xyz)
    torch.testing.assert_close(uv_px, plain)
    assert bool(visible.all() and plainly_visible.all())
    summed = torch.autograd.functional.jacobian(lambda x: camera.project(x)[0].sum(0), xyz)
    expected = summed.permute(1, 0, 2)
    # as pixels for a step of the size of the depth, so that near and far points count alike
    scale = xyz[:, 2].abs()[:, None, None]
    torch.testing.assert_close(jacobian * scale, expected * scale, atol=1e-3, rtol=1e-6)


@each_camera
def test_the_jacobian_on_the_optical_axis(camera: Camera) -> None:
    jacobian = camera.project_with_jacobian(torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))[1]
    step = 1e-6
    eye = step * torch.eye(3, dtype=torch.float64)
    axis = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    expected = (camera.project(axis + eye)[0] - camera.project(axis - eye)[0]).T / (2 * step)
    torch.testing.assert_close(jacobian[0], expected, atol=1e-5, rtol=0)


@each_camera
def test_points_without_an_image_are_masked(camera: Camera) -> None:
    xyz = torch.tensor([[0.0, 0.0, -1.0], [0.1, 0.2, -3.0], [0.0, 0.0, 0.0], [0.0, 0.0, -1e-30]], dtype=torch.float64)
    uv_px, jacobian, visible = camera.project_with_jacobian(xyz)
    assert not bool(visible.any())
    assert bool(torch.isfinite(uv_px).all() and torch.isfinite(jacobian).all())


def test_a_fisheye_sees_beyond_90_degrees_and_others_do_not() -> None:
    beside = torch.tensor([[1.0, 0.0, -0.05], [0.0, 1.0, 0.0]], dtype=torch.float64)
    wide = Camera(640, 480, 180.0, 180.0, 319.5, 239.5, DistortionModel.EQUIDISTANT, ())
    uv_px, visible = wide.project(beside)
    assert bool(visible.all())
    torch.testing.assert_close(wide.unproject(uv_px), torch.nn.functional.normalize(beside, dim=1), atol=1e-9, rtol=0)
    assert not bool(PINHOLE.project(beside)[1].any())


@pytest.mark.parametrize(
    ("camera", "fold"),
    [
        (Camera(640, 480, 400, 400, 320, 240, distortion=(-0.3,)), math.sqrt(1 / 0.9)),
        (Camera(640, 480, 400, 400, 320, 240, DistortionModel.EQUIDISTANT, (-0.3,)), math.tan(math.sqrt(1 / 0.9))),
        (Camera(640, 480, 400, 400, 320, 240, DistortionModel.RATIONAL, (0, 0, 0, 0, 0, 1.0)), 1.0),
    ],
    ids=["plumb_bob", "equidistant", "rational"],
)
def test_beyond_the_fold_of_the_distortion_there_is_no_image(camera: Camera, fold: float) -> None:
    """Where the distorted radius stops growing, a second ray would take the place of the first."""
    angle = torch.linspace(0, 2 * math.pi, 12, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert bool(camera.project(circle * 0.999 * fold + axis)[1].all())
    assert not bool(camera.project(circle * 1.001 * fold + axis)[1].any())


@each_camera
def test_a_resized_camera_sees_the_same_rays(camera: Camera) -> None:
    """The corners of the image, half a pixel beyond the outer pixels' centres, stay its corners."""
    small = camera.resized(201, 149)
    assert (small.width, small.height) == (201, 149)
    share = torch.rand((100, 2), generator=generator(), dtype=torch.float64)
    large_px = share * torch.tensor([640.0, 480.0], dtype=torch.float64) - 0.5
    small_px = share * torch.tensor([201.0, 149.0], dtype=torch.float64) - 0.5
    torch.testing.assert_close(small.unproject(small_px), camera.unproject(large_px), atol=1e-9, rtol=0)


def test_contains() -> None:
    uv_px = torch.tensor([[-0.5, 0.0], [-0.6, 0.0], [639.5, 479.5], [639.6, 0.0], [5.0, 5.0], [torch.nan, 0.0]])
    assert PINHOLE.contains(uv_px).tolist() == [True, False, True, False, True, False]
    assert PINHOLE.contains(uv_px, border_px=5.5).tolist() == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fx": 0.0}, "focal lengths"),
        ({"fy": -1.0}, "focal lengths"),
        ({"cx": math.nan}, "NaN"),
        ({"fx": math.inf}, "NaN or infinity"),
        ({"width": 0}, "0x480"),
        ({"height": -1}, "640x-1"),
        ({"distortion": (0.1, math.nan)}, "NaN"),
        ({"distortion": (0.1, 0, 0, 0, 0, 0.2)}, "at most 5"),
        ({"model": DistortionModel.EQUIDISTANT, "distortion": (0.1, 0, 0, 0, 0.2)}, "at most 4"),
    ],
)
def test_bad_intrinsics_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        Camera(**{"width": 640, "height": 480, "fx": 400.0, "fy": 400.0, "cx": 320.0, "cy": 240.0, **values})


def test_cells_and_pixels() -> None:
    grid = CellGrid(8, 3.5)
    pixels = torch.tensor([[3.5, 11.5], [0.0, 7.5]])
    assert grid.cell_from_pixel(pixels).tolist() == [[0.0, 1.0], [-0.4375, 0.5]]
    assert torch.equal(grid.pixel_from_cell(grid.cell_from_pixel(pixels)), pixels)
