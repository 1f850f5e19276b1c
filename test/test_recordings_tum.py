"""TUM folders: what is in them comes out exactly; what is missing or damaged is told in a sentence."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_recordings import STEP_NS, assert_same_frame, assert_same_pose, make_frames, pose_at, pose_line, stamp_ns
from small_recordings import write_tum as write

from nre_ros.errors import CalibrationError, NreError, RecordingError
from nre_ros.recordings import open_recording
from nre_ros.recordings.compressed import encode_png
from nre_ros.recordings.tables import stamp_ns_from_text
from nre_ros.recordings.tum import TumRecording


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "desk", make_frames(4, depth=True))


def _rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _append_key(folder: Path, line: str) -> None:
    with (folder / "camera.yaml").open("a") as file:
        file.write(line + "\n")


def _set_poses(folder: Path, stamps: list[int]) -> None:
    (folder / "groundtruth.txt").write_text("\n".join(pose_line(s, pose_at(s)) for s in stamps) + "\n")


def test_frames_come_back_and_again(folder):
    recording = open_recording(folder)
    for _ in range(2):
        frames = list(recording.frames())
        for actual, expected in zip(frames, make_frames(4, depth=True), strict=True):
            assert_same_frame(actual, expected)
    assert recording.name == "desk" and recording.unit == "metre" and recording.problems == []
    recording.require_poses()


def test_roles_select(folder):
    recording = TumRecording(folder)
    assert [f.stamp_ns for f in recording.frames("query")] == [stamp_ns(3)]
    assert [f.stamp_ns for f in recording.frames("map")] == [stamp_ns(i) for i in range(3)]
    assert recording.count() == 4 and recording.count("map") == 3
    for call in (recording.count, recording.frames):
        with pytest.raises(RecordingError, match=r"no role 'test'.*map, query"):
            call("test")
    (folder / "split.txt").unlink()
    with pytest.raises(RecordingError, match=r"no split.txt"):
        TumRecording(folder).frames("map")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1305031102.175304", 1_305_031_102_175_304_000),
        ("1305031102.175304123", 1_305_031_102_175_304_123),
        ("0.000000", 0),
        ("1e3", 1_000_000_000_000),
        ("7", 7_000_000_000),
    ],
)
def test_times_are_exact(text, expected):
    assert stamp_ns_from_text(text, "here") == expected


@pytest.mark.parametrize("text", ["", "now", "-1.0", "nan", "inf"])
def test_bad_times_are_refused(text):
    with pytest.raises(RecordingError, match=r"rgb.txt line 3 has the time"):
        stamp_ns_from_text(text, "rgb.txt line 3")


def test_poses_of_another_rate_are_interpolated(folder):
    """100 Hz poses out of step with the images, in any order."""
    stamps = [stamp_ns(0) - 4_000_000 + i * 10_000_000 for i in range(35)]
    _set_poses(folder, stamps[::-1])
    for frame in TumRecording(folder).frames():
        assert frame.stamp_ns not in stamps
        assert_same_pose(frame.map_from_cam, pose_at(frame.stamp_ns))


def test_nearest_pose_serves_within_20_ms_only(folder):
    offsets_ms = [19, 21, -19, -21]
    _set_poses(folder, [stamp_ns(2 * i) + ms * 1_000_000 for i, ms in enumerate(offsets_ms)])
    _rewrite_stamps_to_every_second(folder)
    recording = TumRecording(folder)
    frames = list(recording.frames())
    assert [f.map_from_cam is not None for f in frames] == [True, False, True, False]
    assert_same_pose(frames[0].map_from_cam, pose_at(stamp_ns(0) + 19_000_000))
    assert recording.problems == [f"2 of 4 images of {folder} have no pose near their time"]


def _rewrite_stamps_to_every_second(folder: Path) -> None:
    stamps = [f"{s // 10**9}.{s % 10**9:09d}" for s in (stamp_ns(2 * i) for i in range(4))]
    (folder / "rgb.txt").write_text("".join(f"{s} rgb/{i}.png\n" for i, s in enumerate(stamps)))


def test_depth_is_matched_by_time_and_scaled_as_the_file_says(folder):
    _append_key(folder, "depth_scale: 1000")
    lines = [f"{(s := stamp_ns(i) + (i * 8_000_000)) // 10**9}.{s % 10**9:09d} depth/{i}.png" for i in range(4)]
    (folder / "depth.txt").write_text("\n".join(lines))
    frames = list(TumRecording(folder).frames())
    assert [f.depth_m is not None for f in frames] == [True, True, True, False]
    np.testing.assert_allclose(frames[1].depth_m, 5 * make_frames(2, depth=True)[1].depth_m, rtol=1e-6)
    assert frames[1].depth_m.dtype == np.float32


def test_unit_is_read(folder):
    _append_key(folder, "unit: arbitrary")
    assert TumRecording(folder).unit == "arbitrary"


def test_poses_may_be_missing_where_nobody_needs_them(folder):
    (folder / "groundtruth.txt").unlink()
    recording = TumRecording(folder)
    assert [f.map_from_cam for f in recording.frames()] == [None] * 4
    with pytest.raises(RecordingError, match=r"no poses: expected .*groundtruth.txt"):
        recording.require_poses()


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_frames_with_nan_poses_are_left_out_and_told(folder, number):
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    lines[2] = " ".join([lines[2].split()[0], number, *lines[2].split()[2:]])
    (folder / "groundtruth.txt").write_text("\n".join(lines))
    recording = TumRecording(folder)
    assert [f.stamp_ns for f in recording.frames()] == [stamp_ns(i) for i in (0, 2, 3)]
    assert len(recording.problems) == 1 and "rgb/1.png is left out: its pose" in recording.problems[0]


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "missing"])
def test_a_damaged_image_in_the_middle_is_left_out_and_told(folder, damage):
    path = folder / "rgb/1.png"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut off": path.read_bytes()[:300], "empty": b"", "text": b"no image"}[damage])
    recording = TumRecording(folder)
    for _ in range(2):  # problems do not pile up
        assert [f.stamp_ns for f in recording.frames()] == [stamp_ns(i) for i in (0, 2, 3)]
        assert len(recording.problems) == 1 and "rgb/1.png is left out" in recording.problems[0]


def test_damaged_depth_costs_the_depth_alone(folder):
    (folder / "depth/1.png").write_bytes(b"")
    recording = TumRecording(folder)
    assert [f.depth_m is not None for f in recording.frames()] == [True, False, True, True]
    assert len(recording.problems) == 1 and "depth/1.png is left out" in recording.problems[0]


def test_not_one_good_image_is_an_error(folder):
    for path in (folder / "rgb").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RecordingError, match=r"none of the 4 images .*usable; .*rgb/0.png"):
        list(TumRecording(folder).frames())


def test_size_that_disagrees_with_the_calibration_names_both(folder):
    (folder / "rgb/2.png").write_bytes(encode_png(np.zeros((12, 16, 3), np.uint8)))
    with pytest.raises(CalibrationError, match=r"16x12.*32x24"):
        list(TumRecording(folder).frames())


def test_unregistered_depth_names_both_sizes(folder):
    lines = (folder / "depth.txt").read_text()
    small = write(folder / "small", make_frames(1, depth=True)) / "depth/0.png"
    small.write_bytes(cv2.imencode(".png", np.ones((12, 16), np.uint16))[1].tobytes())
    (folder / "depth.txt").write_text(lines.replace("depth/1.png", "small/depth/0.png"))
    with pytest.raises(RecordingError, match=r"16x12.*32x24"):
        list(TumRecording(folder).frames())


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("groundtruth.txt", None, "1.0 0 0 0 0 0 0 2", r"groundtruth.txt line 1: .*length 2, expected 1"),
        ("groundtruth.txt", None, "1.0 0 0 0 0 0 1", r"groundtruth.txt line 1 has '0 0 0 0 0 1'"),
        ("groundtruth.txt", None, "1.0 a b c d e f g", r"groundtruth.txt line 1 has 'a b c"),
        ("rgb.txt", None, "# nothing\n", r"rgb.txt lists no images"),
        ("rgb.txt", None, "1.0\n", r"rgb.txt line 1 names no file"),
        ("rgb.txt", None, "later a.png\n", r"rgb.txt line 1 has the time 'later'"),
        ("camera.yaml", None, "[]", r"camera.yaml holds no keys"),
        ("camera.yaml", "image_width: 32", "image_width: 0", r"0x24"),
        ("camera.yaml", "image_width", "unit: feet\nimage_width", r"unit 'feet', expected metre or arbitrary"),
        ("camera.yaml", "image_width", "depth_scale: -1\nimage_width", r"depth_scale -1"),
    ],
)
def test_what_makes_a_folder_unusable_is_one_sentence(folder, name, old, new, said):
    if old is None:
        (folder / name).write_text(new)
    else:
        _rewrite(folder / name, old, new)
    with pytest.raises(NreError, match=said) as error:
        TumRecording(folder)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(folder):
    (folder / "camera.yaml").unlink()
    with pytest.raises(RecordingError, match=r"no usable calibration: .*camera.yaml does not exist"):
        TumRecording(folder)
    (folder / "rgb.txt").unlink()
    with pytest.raises(RecordingError, match=r"is no recording: expected .*rgb.txt.*, found depth"):
        open_recording(folder)
    with pytest.raises(RecordingError, match="does not exist"):
        open_recording(folder / "nowhere")


def test_options_of_bags_are_refused(folder):
    with pytest.raises(RecordingError, match="image_topic can be chosen for bags alone"):
        open_recording(folder, image_topic="/camera", map_frame="")


DATA = Path(os.environ.get("NRE_ROS_DATA", "")) / "data/eval"
needs_data = pytest.mark.skipif("NRE_ROS_DATA" not in os.environ, reason="NRE_ROS_DATA names no folder with data")


@needs_data
@pytest.mark.parametrize(
    ("scene", "images", "queries", "size"),
    [("fox", 50, 10, (640, 360)), ("street_kitti", 51, 10, (370, 1226)), ("terrace", 302, 100, (270, 480))],
)
def test_real_scenes_are_read(scene, images, queries, size):
    recording = open_recording(DATA / scene)
    assert (recording.count(), recording.count("query")) == (images, queries)
    frames = list(recording.frames("query"))
    assert len(frames) == queries and recording.problems == []
    assert all(f.map_from_cam is not None and f.image_rgb.shape == (*size, 3) for f in frames)
    assert all(f.stamp_ns % STEP_NS == 0 for f in frames)


@needs_data
def test_grey_images_become_rgb():
    frame = next(open_recording(DATA / "street_kitti").frames())
    assert frame.image_rgb.shape == (370, 1226, 3) and frame.image_rgb.dtype == np.uint8
    assert np.ptp(frame.image_rgb, axis=2).max() == 0 and frame.image_rgb.std() > 10
