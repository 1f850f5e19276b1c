"""rosbag2 recordings: written and read back exactly, poses from every source, damage told in a sentence."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_bags import RawBag
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from small_recordings import CAMERA, assert_same_frame, assert_same_pose, make_frames, pose_at, stamp_ns

from nre_ros.errors import CalibrationError, NreError, RecordingError
from nre_ros.geometry import Pose
from nre_ros.geometry.pose_track import IDENTITY, rigid_from_pose
from nre_ros.recordings import bag_messages as messages
from nre_ros.recordings import open_recording
from nre_ros.recordings.bag import BagRecording
from nre_ros.recordings.bag_reader import BagReader
from nre_ros.recordings.bag_writer import BASE_FROM_CAMERA, BagWriter
from nre_ros.recordings.camera_info import camera_from_info
from nre_ros.recordings.compressed import encode_png
from nre_ros.recordings.images import decode_image

BASE_FROM_HEAD = Pose.exp(torch.tensor([0.2, -0.4, 0.1, 0.3, 0.1, 1.2], dtype=torch.float64))


def _write(folder: Path, frames, *, compressed=False, **options) -> Path:
    with BagWriter(folder, **options) as writer:
        for frame in frames:
            writer.write_frame(frame, compressed=compressed)
    return folder


def _poses(recording) -> list[Pose | None]:
    return [frame.map_from_cam for frame in recording.frames()]


def _assert_true_poses(recording) -> None:
    frames = list(recording.frames())
    assert frames
    for frame in frames:
        assert_same_pose(frame.map_from_cam, pose_at(frame.stamp_ns))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("pose_mode", ["map_tf", "odom_tf", "none"])
def test_what_is_written_is_read_back(tmp_path, storage, compressed, pose_mode):
    frames = make_frames(4, depth=True)
    folder = _write(tmp_path / "bag", frames, storage=storage, compressed=compressed, pose_mode=pose_mode)
    recording = open_recording(folder)
    for _ in range(2):
        for actual, expected in zip(recording.frames(), frames, strict=True):
            assert_same_frame(actual, expected)
    assert recording.problems == [] and recording.count() == 4 and recording.name == "bag"
    recording.require_poses()


def test_camera_may_sit_anywhere_on_the_robot(tmp_path):
    frames = make_frames()
    for mode in ("map_tf", "odom_tf"):
        folder = _write(tmp_path / mode, frames, base_from_camera=BASE_FROM_HEAD, pose_mode=mode)
        _assert_true_poses(BagRecording(folder))


def test_given_odometry_splits_the_chain(tmp_path):
    def map_from_odom(stamp: int) -> Pose:
        return Pose.exp(
            torch.tensor([0, 0, 0.3, 2.0, 1.0, 0], dtype=torch.float64) * (1 + (stamp - stamp_ns(0)) * 1e-9)
        )

    folder = _write(tmp_path / "bag", make_frames(), map_from_odom=map_from_odom)
    _assert_true_poses(BagRecording(folder, pose_topic="/tf"))
    odometry = BagRecording(folder, map_frame="odom")
    for frame in odometry.frames():
        assert_same_pose(map_from_odom(frame.stamp_ns) @ frame.map_from_cam, pose_at(frame.stamp_ns))


def test_odometry_bag_does_not_hold_the_answer_on_tf(tmp_path):
    folder = _write(tmp_path / "bag", make_frames(), pose_mode="odom_tf")
    with pytest.raises(RecordingError, match="'map' is in no transform"):
        BagRecording(folder, pose_topic="/tf", map_frame="map").require_poses()
    drifted = _poses(BagRecording(folder, pose_topic="/tf"))
    assert all((p.translation - pose_at(stamp_ns(i)).translation).norm() > 1 for i, p in enumerate(drifted))


def test_unit_and_roles_are_kept(tmp_path):
    with BagWriter(tmp_path / "bag", unit="arbitrary") as writer:
        for frame, role in zip(make_frames(3), ("map", "query", None), strict=True):
            writer.write_frame(frame, role=role)
    recording = BagRecording(tmp_path / "bag")
    assert recording.unit == "arbitrary"
    assert [f.stamp_ns for f in recording.frames("query")] == [stamp_ns(1)]
    assert recording.count("map") == 1 and recording.count() == 3
    with pytest.raises(RecordingError, match="no role 'test'"):
        recording.frames("test")


def test_rounded_depth_stays_within_half_a_millimetre(tmp_path):
    frames = make_frames(1, depth=True)
    read = next(BagRecording(_write(tmp_path / "bag", frames, depth_encoding="16UC1")).frames())
    assert np.nanmax(np.abs(read.depth_m - frames[0].depth_m)) < 0.00051


def test_single_files_are_read(tmp_path):
    for storage, suffix in (("mcap", "mcap"), ("sqlite3", "db3")):
        folder = _write(tmp_path / storage, make_frames(), storage=storage)
        _assert_true_poses(open_recording(folder / f"{storage}.{suffix}"))


@pytest.mark.parametrize("mode", [CompressionMode.STORAGE, CompressionMode.MESSAGE, CompressionMode.FILE])
def test_zstd_is_read(tmp_path, mode):
    raw = RawBag(tmp_path / "bag")
    raw._writer.set_compression(mode, CompressionFormat.ZSTD)
    frames = [dataclasses.replace(f, map_from_cam=None) for f in make_frames()]
    with raw:
        raw.add_frames(frames)
    for actual, expected in zip(BagRecording(raw.folder).frames(), frames, strict=True):
        assert_same_frame(actual, expected)


@pytest.mark.parametrize("kind", [messages.POSE, messages.POSE_WITH_COVARIANCE, messages.ODOMETRY])
@pytest.mark.parametrize("offset_ns", [0, 7_000_000])
def test_topics_of_poses_serve_with_the_cameras_place_from_tf_static(tmp_path, kind, offset_ns):
    """At 33 Hz and out of step with the images; the base's path between two poses is nearly a straight line."""
    with RawBag(tmp_path / "bag") as bag:
        bag.add_tf("/tf_static", 0, "base_link", "head", rigid_from_pose(BASE_FROM_HEAD))
        bag.add_tf("/tf_static", 0, "head", "cam", rigid_from_pose(BASE_FROM_CAMERA))
        bag.add_frames(make_frames())
        base_from_cam = BASE_FROM_HEAD @ BASE_FROM_CAMERA
        for i in range(20):
            stamp = stamp_ns(0) - 40_000_000 + 30_000_000 * i + offset_ns
            bag.add_pose("/pose", stamp, "world", pose_at(stamp) @ base_from_cam.inverse(), kind, child="base_link")
    recording = BagRecording(bag.folder)
    for frame in recording.frames():
        assert_same_pose(frame.map_from_cam, pose_at(frame.stamp_ns), 1e-4)
    assert recording.problems == []


def test_pose_of_the_camera_itself(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
        for i in range(4):
            bag.add_pose("/vicon", stamp_ns(i), "world", pose_at(stamp_ns(i)))
    recording = BagRecording(bag.folder)
    _assert_true_poses(recording)
    assert len(recording.problems) == 1 and "taken for the pose of the camera's optical frame" in recording.problems[0]
    explicit = BagRecording(bag.folder, base_frame="cam")
    _assert_true_poses(explicit)
    assert explicit.problems == []


def test_extrinsics_stand_in_for_tf_static(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
        for i in range(4):
            pose = pose_at(stamp_ns(i)) @ BASE_FROM_HEAD.inverse()
            bag.add_pose("/odom", stamp_ns(i), "odom", pose, messages.ODOMETRY, child="base_link")
    with pytest.raises(RecordingError, match=r"no transform leads from there to the camera 'cam'.*--camera-extrinsics"):
        BagRecording(bag.folder, pose_topic="/odom").require_poses()
    numbers = [*BASE_FROM_HEAD.translation.tolist(), *BASE_FROM_HEAD.quat_xyzw().tolist()]
    _assert_true_poses(BagRecording(bag.folder, camera_extrinsics=" ".join(map(repr, numbers))))
    for text in ("1 2 3", "a b c d e f g", "0 0 0 0 0 0 2"):
        with pytest.raises(RecordingError, match=f"camera_extrinsics is '{text}'"):
            BagRecording(bag.folder, camera_extrinsics=text)


def test_transforms_are_interpolated_but_not_over_gaps(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames(8))
        for offset_ms in (-30, 370, 780):
            stamp = stamp_ns(0) + offset_ms * 1_000_000
            bag.add_tf("/tf", stamp, "map", "cam", rigid_from_pose(pose_at(stamp)))
        late = stamp_ns(0) + 1_400_000_000
        bag.add_tf("/tf", late, "map", "cam", rigid_from_pose(pose_at(late)))
    _assert_true_poses(BagRecording(bag.folder))
    with RawBag(tmp_path / "gap") as bag:
        bag.add_frames(make_frames(8))
        for offset_ms in (-30, 370, 1100):
            stamp = stamp_ns(0) + offset_ms * 1_000_000
            bag.add_tf("/tf", stamp, "map", "cam", rigid_from_pose(pose_at(stamp)))
    recording = BagRecording(bag.folder)
    assert [pose is not None for pose in _poses(recording)] == [True] * 4 + [False] * 4
    assert len(recording.problems) == 1 and "4 of 8 images" in recording.problems[0]


def test_root_of_the_tree_serves_where_no_map_is(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
        for i in range(4):
            bag.add_tf("/tf", stamp_ns(i), "odom_combined", "cam", rigid_from_pose(pose_at(stamp_ns(i))))
    _assert_true_poses(BagRecording(bag.folder))


def test_bad_transforms_and_poses_are_left_out_and_told(tmp_path):
    nan = (float("nan"), *IDENTITY[1:])
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
        for i in range(4):
            rigid = rigid_from_pose(pose_at(stamp_ns(i)))
            bag.add_tf("/tf", stamp_ns(i), "map", "cam", nan if i in (0, 3) else rigid)
    recording = BagRecording(bag.folder)
    assert [pose is not None for pose in _poses(recording)] == [False, True, True, False]
    assert len(recording.problems) == 2 and "map -> cam is refused" in recording.problems[0]


def test_bag_without_poses(tmp_path):
    frames = [dataclasses.replace(frame, map_from_cam=None) for frame in make_frames()]
    recording = BagRecording(_write(tmp_path / "bag", frames))
    assert _poses(recording) == [None] * 4
    assert len(recording.problems) == 1 and "4 of 4 images" in recording.problems[0]
    with pytest.raises(RecordingError, match=r"no poses of the camera: .*record /tf"):
        recording.require_poses()


def test_several_candidates_are_named_with_the_option(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames(), "/left/image", "/left/camera_info", "left")
        bag.add_frames(make_frames(), "/right/image", "/right/camera_info", "right")
        for topic in ("/pose_a", "/pose_b"):
            bag.add_pose(topic, stamp_ns(0), "map", pose_at(stamp_ns(0)))
    with pytest.raises(RecordingError, match=r"/left/image, /right/image; choose one with --image-topic"):
        BagRecording(bag.folder)
    recording = BagRecording(bag.folder, image_topic="/right/image")
    assert recording.topics.info == "/right/camera_info"
    assert _poses(recording) == [None] * 4
    with pytest.raises(RecordingError, match=r"/pose_a, /pose_b; choose one with --pose-topic"):
        recording.require_poses()
    BagRecording(bag.folder, image_topic="/right/image", pose_topic="/pose_b").require_poses()


def test_calibration_of_another_camera_is_not_taken(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames(), "/left/image", "/left/camera_info", "left")
        bag.add_frames(make_frames(), "/right/image", "", "right")
    with pytest.raises(RecordingError, match=r"whose frame is 'right': it has /left/camera_info of 'left'"):
        BagRecording(bag.folder, image_topic="/right/image")
    named = BagRecording(bag.folder, image_topic="/right/image", camera_info_topic="/left/camera_info")
    assert len(list(named.frames())) == 4


def test_two_cameras_on_one_topic_are_not_mixed(tmp_path):
    other = dataclasses.replace(CAMERA, fx=99.0)
    with RawBag(tmp_path / "bag") as bag:
        for i, frame in enumerate(make_frames()):
            bag.add_frames([frame], frame_id="left" if i != 2 else "right", camera=CAMERA if i != 2 else other)
    recording = BagRecording(bag.folder)
    frames = list(recording.frames())
    assert [f.stamp_ns for f in frames] == [stamp_ns(i) for i in (0, 1, 3)]
    assert {f.camera for f in frames} == {CAMERA}
    assert "1 images of /cam/image are of the frame 'right', the first of 'left'" in recording.problems[0]


def test_depth_of_another_frame_is_taken_only_by_name(tmp_path):
    frames = make_frames(2, depth=True)
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames)
        for frame in frames:
            head = messages.header(frame.stamp_ns, "depth_camera")
            bag.add("/depth", frame.stamp_ns, messages.depth_message(head, "32FC1", frame.depth_m))
    recording = BagRecording(bag.folder)
    assert [f.depth_m for f in recording.frames()] == [None, None]
    assert "of the frame 'depth_camera', the colour images of 'cam'" in recording.problems[0]
    assert all(f.depth_m is not None for f in BagRecording(bag.folder, depth_topic="/depth").frames())


def test_depth_out_of_step_is_told(tmp_path):
    frames = make_frames(4, depth=True)
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames)
        for frame in frames:
            head = messages.header(frame.stamp_ns + 40_000_000, "cam")
            bag.add("/depth", frame.stamp_ns, messages.depth_message(head, "32FC1", frame.depth_m))
    recording = BagRecording(bag.folder)
    assert [f.depth_m for f in recording.frames()] == [None] * 4
    assert "4 of 4 images have no depth within 5 ms: the nearest is 40.0 ms away" in recording.problems[0]


def test_frame_with_two_parents_is_told(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
        for i in range(4):
            parent = "map" if i % 2 else "odom"
            bag.add_tf("/tf", stamp_ns(i), parent, "cam", rigid_from_pose(pose_at(stamp_ns(i))))
    recording = BagRecording(bag.folder)
    assert sum(pose is not None for pose in _poses(recording)) == 1
    assert "the frame cam hangs on odom and on map by turns" in recording.problems[0]


def test_frame_of_poses_that_is_not_there_names_those_that_are(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames())
        for i in range(4):
            bag.add_tf("/tf", stamp_ns(i), "world", "cam", rigid_from_pose(pose_at(stamp_ns(i))))
    with pytest.raises(RecordingError, match="frame 'earth' is in no transform; known frames: cam, world"):
        BagRecording(bag.folder, map_frame="earth").require_poses()
    with RawBag(tmp_path / "topic") as bag:
        bag.add_frames(make_frames())
        bag.add_pose("/pose", stamp_ns(0), "world", pose_at(stamp_ns(0)))
    with pytest.raises(RecordingError, match="poses of /pose are in the frame world, expected earth"):
        BagRecording(bag.folder, map_frame="earth").require_poses()


def test_topics_named_wrongly_are_told(tmp_path):
    folder = _write(tmp_path / "bag", make_frames())
    for option in ("image_topic", "camera_info_topic", "depth_topic", "pose_topic"):
        with pytest.raises(
            RecordingError, match=f"no messages on /nothing .--{option.replace('_', '-')}.*it has /camera"
        ):
            BagRecording(folder, **{option: "/nothing"})
        kind = "sensor_msgs/msg/Image" if option == "pose_topic" else "tf2_msgs/msg/TFMessage"
        with pytest.raises(RecordingError, match=f"is {kind}, expected"):
            BagRecording(folder, **{option: "/camera/image_raw" if option == "pose_topic" else "/tf"})


def test_raw_goes_before_compressed_of_the_same_camera(tmp_path):
    frames = make_frames()
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames, "/cam/image")
        for frame in frames:
            head = messages.header(frame.stamp_ns, "cam")
            bag.add("/cam/image/compressed", 0, messages.compressed_message(head, encode_png(frame.image_rgb)))
    assert BagRecording(bag.folder).topics.image == "/cam/image"
    named = BagRecording(bag.folder, image_topic="/cam/image/compressed")
    np.testing.assert_array_equal(next(named.frames()).image_rgb, frames[0].image_rgb)


def test_missing_calibration_and_images_are_told(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(make_frames(), info_topic="")
    with pytest.raises(RecordingError, match=r"no camera_info.*record /cam/camera_info too"):
        BagRecording(bag.folder)
    with RawBag(tmp_path / "bag2") as bag:
        bag.add_tf("/tf", 0, "a", "b", IDENTITY)
    with pytest.raises(RecordingError, match=r"no images; it has /tf"):
        BagRecording(bag.folder)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_empty_bag_is_told(tmp_path, storage):
    with RawBag(tmp_path / "bag", storage):
        pass
    with pytest.raises(RecordingError, match="holds no messages"):
        open_recording(tmp_path / "bag")


def test_calibration_may_change_on_the_way(tmp_path):
    frames = make_frames()
    other = dataclasses.replace(CAMERA, fx=99.0)
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames, info_topic="")
        for i, camera in ((1, CAMERA), (3, other)):
            bag.add("/cam/camera_info", stamp_ns(i), messages.info_message(messages.header(stamp_ns(i), "cam"), camera))
    cameras = [frame.camera for frame in BagRecording(bag.folder).frames()]
    assert cameras == [CAMERA, CAMERA, CAMERA, other]


def test_size_that_disagrees_with_camera_info_names_both(tmp_path):
    frames = make_frames()
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames([dataclasses.replace(f, image_rgb=f.image_rgb[:12, :16]) for f in frames])
    with pytest.raises(CalibrationError, match=r"16x12.*32x24"):
        next(BagRecording(bag.folder).frames())


def _damaged_image(head):
    msg = messages.image_message(head, make_frames(1)[0].image_rgb)
    msg.data = msg.data[:100]
    return msg


def test_damaged_image_in_the_middle_is_left_out_and_told(tmp_path):
    frames = make_frames()
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames[:2])
        bag.add("/cam/image", stamp_ns(2), _damaged_image(messages.header(stamp_ns(2), "cam")))
        bag.add_frames(frames[3:])
    recording = BagRecording(bag.folder)
    assert [f.stamp_ns for f in recording.frames()] == [stamp_ns(i) for i in (0, 1, 3)]
    assert "holds 100 bytes, expected 2304" in recording.problems[0]


def test_unknown_encoding_everywhere_is_an_error(tmp_path):
    with RawBag(tmp_path / "bag") as bag:
        head = messages.header(stamp_ns(0), "cam")
        msg = messages.image_message(head, make_frames(1)[0].image_rgb)
        msg.encoding = "jpeg2000"
        bag.add("/cam/image", stamp_ns(0), msg)
        bag.add("/cam/camera_info", stamp_ns(0), messages.info_message(head, CAMERA))
    with pytest.raises(RecordingError, match=r"none of the images of /cam/image.*'jpeg2000' is unknown"):
        list(BagRecording(bag.folder).frames())


def test_depth_is_matched_within_5_ms(tmp_path):
    frames = make_frames(4, depth=True)
    offsets_ms = (0, 4, 6, -5)
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames)
        for frame, ms in zip(frames, offsets_ms, strict=True):
            head = messages.header(frame.stamp_ns + ms * 1_000_000, "cam")
            bag.add("/cam/depth", frame.stamp_ns + 10**7, messages.depth_message(head, "32FC1", frame.depth_m))
    read = list(BagRecording(bag.folder).frames())
    assert [f.depth_m is not None for f in read] == [True, True, False, True]
    np.testing.assert_array_equal(read[1].depth_m, frames[1].depth_m)
    np.testing.assert_array_equal(read[3].depth_m, frames[3].depth_m)
    assert all(f.depth_m is None for f in BagRecording(bag.folder, depth_topic="none").frames())


def test_unregistered_depth_is_an_error_only_where_it_was_asked_for(tmp_path):
    frames = make_frames(2, depth=True)
    with RawBag(tmp_path / "bag") as bag:
        bag.add_frames(frames)
        for frame in frames:
            head = messages.header(frame.stamp_ns, "cam")
            bag.add("/depth", frame.stamp_ns, messages.depth_message(head, "16UC1", frame.depth_m[:12]))
    recording = BagRecording(bag.folder)
    assert [f.depth_m for f in recording.frames()] == [None, None]
    assert sum("32x12" in problem and "32x24" in problem for problem in recording.problems) == 1
    with pytest.raises(RecordingError, match=r"32x12.*32x24"):
        list(BagRecording(bag.folder, depth_topic="/depth").frames())


def test_images_are_streamed(tmp_path):
    """Reading 40 images of 0.7 MB never holds more than a few of them."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    camera = CAMERA.resized(640, 480)
    frame = dataclasses.replace(make_frames(1)[0], image_rgb=image, camera=camera)
    folder = _write(tmp_path / "bag", (dataclasses.replace(frame, stamp_ns=stamp_ns(i)) for i in range(40)))
    recording = BagRecording(folder)
    recording.require_poses()
    tracemalloc.start()
    assert sum(1 for _ in recording.frames()) == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * image.nbytes


def _failing_after(frames):
    yield from frames
    raise ZeroDivisionError


def test_writer_leaves_nothing_behind_on_failure(tmp_path):
    frames = make_frames()
    with pytest.raises(ZeroDivisionError):
        _write(tmp_path / "bag", _failing_after(frames))
    with pytest.raises(CalibrationError), BagWriter(tmp_path / "bag") as writer:
        writer.write_frame(dataclasses.replace(frames[0], image_rgb=frames[0].image_rgb[:5]))
    with pytest.raises(RecordingError, match="no frame was written"), BagWriter(tmp_path / "bag"):
        pass
    for stamp in (-1, 2**31 * 10**9):
        with (
            pytest.raises(RecordingError, match="cannot stand in a ROS message"),
            BagWriter(tmp_path / "bag") as writer,
        ):
            writer.write_frame(dataclasses.replace(frames[0], stamp_ns=stamp))
    assert list(tmp_path.iterdir()) == []


def test_writer_replaces_only_bags_and_only_when_asked(tmp_path):
    folder = _write(tmp_path / "bag", make_frames(4))
    with pytest.raises(RecordingError, match="exists already"):
        _write(folder, make_frames(2))
    with pytest.raises(ZeroDivisionError):
        _write(folder, _failing_after(make_frames(1)), overwrite=True)
    assert BagRecording(folder).count() == 4
    _write(folder, make_frames(2), overwrite=True)
    assert BagRecording(folder).count() == 2
    other = tmp_path / "photos"
    other.mkdir()
    with pytest.raises(RecordingError, match="is no rosbag2"):
        _write(other, make_frames(2), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "photos"]


def test_writer_tells_where_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written"):
        _write(tmp_path / "file/bag", make_frames(1))


@pytest.mark.parametrize("options", [{"storage": "zip"}, {"pose_mode": "gps"}, {"depth_encoding": "8UC1"}])
def test_writer_refuses_unknown_options(tmp_path, options):
    with pytest.raises(NreError, match="expected one of"):
        BagWriter(tmp_path / "bag", **options)


def test_stored_bytes_are_what_ros_reads(tmp_path):
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed")
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import CameraInfo, Image

    frame = make_frames(1)[0]
    folder = _write(tmp_path / "bag", [frame])
    stored = dict(BagReader(folder).messages("/camera/image_raw", "/camera/camera_info", "/ground_truth/pose"))
    image = serialization.deserialize_message(stored["/camera/image_raw"], Image)
    assert messages.stamp_ns_of(image.header) == frame.stamp_ns
    pixels = decode_image(image.encoding, image.height, image.width, image.step, image.is_bigendian, image.data)
    np.testing.assert_array_equal(pixels, frame.image_rgb)
    assert camera_from_info(serialization.deserialize_message(stored["/camera/camera_info"], CameraInfo)) == CAMERA
    truth = serialization.deserialize_message(stored["/ground_truth/pose"], PoseStamped)
    expected = rigid_from_pose(pose_at(frame.stamp_ns) @ BASE_FROM_CAMERA.inverse())
    p, q = truth.pose.position, truth.pose.orientation
    assert (p.x, p.y, p.z, q.x, q.y, q.z, q.w) == expected
