"""Cameras from CameraInfo and calibration files: region of interest, binning, models, and what is refused."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nre_ros.errors import CalibrationError
from nre_ros.geometry import Camera, DistortionModel
from nre_ros.recordings import bag_messages
from nre_ros.recordings.camera_info import camera_from_info, camera_from_yaml, camera_to_yaml, check_size, info_fields

CAMERA = Camera(640, 480, 500.25, 501.5, 321.125, 239.75, distortion=(0.1, -0.05, 0.001, -0.002, 0.01))
FISHEYE = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, DistortionModel.EQUIDISTANT, (0.05, -0.01, 0.002, 0.0001))
RATIONAL = Camera(640, 480, 500.0, 500.0, 320.0, 240.0, DistortionModel.RATIONAL, (0.3, 0.1, 0, 0, 0, 0.2, 0.1, 0.01))


def _info(camera=CAMERA, *, binning=(0, 0), roi=(0, 0, 0, 0), **changes):
    x, y, width, height = roi
    region = SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height)
    fields = info_fields(camera) | changes
    return SimpleNamespace(**fields, binning_x=binning[0], binning_y=binning[1], roi=region)


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE, RATIONAL])
def test_info_and_file_give_the_camera_back(camera, tmp_path):
    assert camera_from_info(_info(camera)) == camera
    camera_to_yaml(camera, tmp_path / "camera.yaml")
    assert camera_from_yaml(tmp_path / "camera.yaml") == camera


def test_messages_of_rosbags_and_rclpy_serve():
    head = bag_messages.header(0, "camera")
    raw = bag_messages.serialized(bag_messages.info_message(head, RATIONAL))
    assert camera_from_info(bag_messages.typestore().deserialize_cdr(raw, bag_messages.CAMERA_INFO)) == RATIONAL
    ros = pytest.importorskip("sensor_msgs.msg", reason="no ROS messages in this environment")
    assert camera_from_info(ros.CameraInfo(**info_fields(CAMERA))) == CAMERA
    with pytest.raises(CalibrationError, match="not calibrated"):
        camera_from_info(ros.CameraInfo(width=640, height=480))


@pytest.mark.parametrize("camera", [CAMERA, FISHEYE])
@pytest.mark.parametrize("binning", [(0, 0), (1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("roi", [(0, 0, 0, 0), (100, 60, 301, 200)])
def test_region_and_binning_move_projections_as_they_move_pixels(camera, binning, roi):
    """A sensor pixel u is cut out to u - x, and the blocks of n pixels put it at (u - x + 0.5) / n - 0.5."""
    got = camera_from_info(_info(camera, binning=binning, roi=roi))
    nx, ny = (max(1, n) for n in binning)
    width, height = roi[2:] if roi[2] else (640, 480)
    assert (got.width, got.height) == (width // nx, height // ny)
    xyz = torch.tensor([[0.1, -0.2, 1.0], [0.4, 0.3, 2.0], [-0.5, 0.1, 1.5]], dtype=torch.float64)
    on_sensor = camera.project(xyz)[0].numpy()
    expected = (on_sensor - roi[:2] + 0.5) / [nx, ny] - 0.5
    np.testing.assert_allclose(got.project(xyz)[0].numpy(), expected, atol=1e-9)


def test_region_outside_the_sensor_is_refused():
    with pytest.raises(CalibrationError, match=r"301x200 at \(400, 60\).*640x480"):
        camera_from_info(_info(roi=(400, 60, 301, 200)))


def test_fisheye_is_another_name_of_equidistant():
    assert camera_from_info(_info(FISHEYE, distortion_model="fisheye")) == FISHEYE


def test_models_of_distortion():
    pinhole = camera_from_info(_info(distortion_model="", d=[]))
    assert not pinhole.has_distortion
    assert camera_from_info(_info(distortion_model="", d=[0.0] * 5)) == pinhole
    for model in ("", "scaramuzza"):
        with pytest.raises(CalibrationError, match=f"distortion model '{model}'.*plumb_bob"):
            camera_from_info(_info(distortion_model=model))
    with pytest.raises(CalibrationError, match="at most 5"):
        camera_from_info(_info(d=[0.1] * 8))


def test_uncalibrated_cameras_are_refused():
    with pytest.raises(CalibrationError, match="not calibrated"):
        camera_from_info(_info(k=[0.0] * 9))
    with pytest.raises(CalibrationError, match="NaN"):
        camera_from_info(_info(k=[np.nan] * 9))
    with pytest.raises(CalibrationError, match="0x0"):
        camera_from_info(_info(width=0, height=0))


def test_size_check_names_both_sizes():
    check_size(CAMERA, np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(CalibrationError, match=r"480x640.*640x480"):
        check_size(CAMERA, np.zeros((640, 480, 3), np.uint8))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no keys"),
        ("a: [", "cannot be read as YAML"),
        ("image_width: 640", "lacks the key 'image_height'"),
        ("image_width: 640\nimage_height: 480\ncamera_matrix: 3", "wrong type"),
        ("image_width: 640\nimage_height: wide\ncamera_matrix: {data: []}", "wrong type"),
        ("image_width: 640\nimage_height: 480\ncamera_matrix: {data: [1, 2]}", "2 numbers, expected 9"),
    ],
)
def test_bad_files_are_told(text, said, tmp_path):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=said) as error:
        camera_from_yaml(tmp_path / "camera.yaml")
    assert "\n" not in str(error.value) and "camera.yaml" in str(error.value)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(CalibrationError, match="does not exist"):
        camera_from_yaml(tmp_path / "camera.yaml")


@pytest.mark.skipif("NRE_ROS_DATA" not in os.environ, reason="NRE_ROS_DATA names no folder with data")
def test_calibration_of_a_real_phone():
    path = Path(os.environ["NRE_ROS_DATA"]) / "data/eval/fox/camera.yaml"
    camera = camera_from_yaml(path)
    assert (camera.width, camera.height) == (360, 640)
    assert camera.distortion == (0.0578, -0.0805, -0.001, 0.0002, 0.0)
