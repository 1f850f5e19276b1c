"""Every kind of recording of the same corner: the same frames, and a map that finds the held-out views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import recording_formats as formats
import ros_world
from raw_bags import RawBag
from small_recordings import assert_same_pose, write_tum

from nre_ros.config import BuilderConfig, LocalizerConfig, with_values
from nre_ros.errors import RecordingError
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Camera, DistortionModel, pose_error
from nre_ros.geometry.pose_track import rigid_from_pose
from nre_ros.localization import Localizer
from nre_ros.mapping import MapBuilder
from nre_ros.recordings import Frame, Recording, bag_messages, open_recording
from nre_ros.recordings.bag_writer import BASE_FROM_CAMERA, BagWriter
from nre_ros.recordings.tables import write_roles

MAPPED, HELD_OUT = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 2.6)


@pytest.fixture(scope="module")
def corner() -> list[Frame]:
    """Six views to map, then two to find."""
    return [ros_world.frame(index, (i + 1) * 10**9) for i, index in enumerate((*MAPPED, *HELD_OUT))]


def _without_depth(frames: list[Frame]) -> list[Frame]:
    return [dataclasses.replace(frame, depth_m=None) for frame in frames]


def _split_by_name(folder: Path, names: list[str]) -> Path:
    lines = [f"{name} {'map' if i < len(MAPPED) else 'query'}" for i, name in enumerate(names)]
    (folder / "split.txt").write_text("# image role\n" + "\n".join(lines) + "\n")
    return folder


def _colmap(folder: Path, frames: list[Frame], **options: object) -> Path:
    formats.write_colmap(folder, frames, **options)  # type: ignore[arg-type]
    return _split_by_name(folder, [formats.image_name(i) for i in range(len(frames))])


def _bag(folder: Path, frames: list[Frame], compressed: bool = False, **options: str) -> Path:
    with BagWriter(folder, **options) as writer:  # type: ignore[arg-type]
        for i, frame in enumerate(frames):
            writer.write_frame(frame, compressed=compressed, role="map" if i < len(MAPPED) else "query")
    return folder


def _bag_with_poses_of_the_base(folder: Path, frames: list[Frame], kind: str) -> Path:
    with RawBag(folder) as bag:
        bag.add_tf("/tf_static", 0, "base_link", "cam", rigid_from_pose(BASE_FROM_CAMERA))
        bag.add_frames(frames, camera=frames[0].camera)
        for frame in frames:
            assert frame.map_from_cam is not None
            map_from_base = frame.map_from_cam @ BASE_FROM_CAMERA.inverse()
            bag.add_pose("/pose", frame.stamp_ns, "world", map_from_base, kind, child="base_link")
    write_roles(folder, {frame.stamp_ns: "map" if i < len(MAPPED) else "query" for i, frame in enumerate(frames)})
    return folder


def _bag_with_path(folder: Path, frames: list[Frame]) -> Path:
    """Poses of base_link on a growing Path, as SLAM publishes it, and a shorter one after it was reset."""
    with RawBag(folder) as bag:
        bag.add_tf("/tf_static", 0, "base_link", "cam", rigid_from_pose(BASE_FROM_CAMERA))
        for frame in frames:
            head = bag_messages.header(frame.stamp_ns, "cam")
            bag.add("/cam/image", frame.stamp_ns, bag_messages.image_message(head, frame.image_rgb))
            bag.add("/cam/camera_info", frame.stamp_ns, bag_messages.info_message(head, frame.camera))
        for count in (1, 4, len(frames), 2):
            bag.add_path("/slam/path", frames[-1].stamp_ns + count, "world", frames[:count])
    write_roles(folder, {frame.stamp_ns: "map" if i < len(MAPPED) else "query" for i, frame in enumerate(frames)})
    return folder


SOURCES: dict[str, Callable[[Path, list[Frame]], Path]] = {
    "colmap_bin": _colmap,
    "colmap_text_in_sparse": lambda folder, frames: _colmap(folder, frames, text=True, place="sparse"),
    "colmap_in_the_folder": lambda folder, frames: _colmap(folder, frames, place="."),
    "seven_scenes": lambda folder, frames: formats.write_seven_scenes(folder, frames, len(HELD_OUT)),
    "transforms": lambda folder, frames: formats.write_transforms(folder, frames, len(HELD_OUT)),
    "tum": lambda folder, frames: write_tum(folder, frames, len(HELD_OUT)),
    "bag": _bag,
    "bag_sqlite3_pose": lambda folder, frames: _bag(folder, frames, True, storage="sqlite3", pose_mode="none"),
    "bag_with_path": _bag_with_path,
    "bag_with_odometry": lambda folder, frames: _bag_with_poses_of_the_base(folder, frames, bag_messages.ODOMETRY),
    "bag_with_covariance": lambda folder, frames: _bag_with_poses_of_the_base(
        folder, frames, bag_messages.POSE_WITH_COVARIANCE
    ),
}
WITH_DEPTH = {"seven_scenes", "tum", "bag", "bag_sqlite3_pose"}


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest, corner: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / request.param
    return SOURCES[request.param](folder, corner)


def test_frames_are_those_that_were_written(source: Path, corner: list[Frame]) -> None:
    recording = open_recording(source)
    recording.require_poses()
    read = list(recording.frames())
    assert recording.count() == len(read) == len(corner)
    assert sorted({frame.stamp_ns for frame in read}) == [frame.stamp_ns for frame in read]
    for actual, expected in zip(read, corner, strict=True):
        np.testing.assert_array_equal(actual.image_rgb, expected.image_rgb)
        np.testing.assert_allclose(actual.camera.matrix(), expected.camera.matrix(), atol=1e-9)
        assert actual.map_from_cam is not None and expected.map_from_cam is not None
        assert_same_pose(actual.map_from_cam, expected.map_from_cam, 1e-9)
        assert (actual.depth_m is not None) == (source.name in WITH_DEPTH)
        if actual.depth_m is not None and expected.depth_m is not None:
            near = expected.depth_m < 10
            np.testing.assert_allclose(actual.depth_m[near], expected.depth_m[near], atol=6e-4)
    assert [recording.count(role) for role in ("map", "query")] == [len(MAPPED), len(HELD_OUT)]
    assert recording.unit == ("arbitrary" if source.name.startswith(("colmap", "transforms")) else "metre")


def test_the_map_of_it_finds_its_queries(source: Path, network: FeatureNetwork) -> None:
    assert_queries_are_found(open_recording(source), network)


def assert_queries_are_found(recording: Recording, network: FeatureNetwork) -> None:
    builder = MapBuilder(network, BuilderConfig(), unit=recording.unit)
    for frame in recording.frames("map"):
        builder.add(frame)
    localizer = Localizer(builder.build(), network, with_values(LocalizerConfig(), ros_world.QUICK))
    queries = list(recording.frames("query"))
    assert len(queries) == len(HELD_OUT)
    for query in queries:
        answer = localizer.localize(query.image_rgb, query.camera)
        assert answer.accepted and answer.map_from_cam is not None and query.map_from_cam is not None, answer.reason
        degrees, metres = pose_error(answer.map_from_cam, query.map_from_cam)
        assert degrees < 0.3 and metres < 0.015


DISTORTED = {
    "rational": (DistortionModel.RATIONAL, (0.3, -0.1, 0.002, -0.001, 0.02, 0.6, 0.05, 0.01)),
    "fisheye": (DistortionModel.EQUIDISTANT, (0.05, -0.02, 0.004, -0.001)),
}


@pytest.mark.parametrize("kind", DISTORTED)
def test_nothing_need_be_undistorted(kind: str, network: FeatureNetwork, tmp_path: Path) -> None:
    """A bag of a camera that bends lines, without depth."""
    model, coefficients = DISTORTED[kind]
    camera = Camera(320, 240, 180.0, 182.0, 161.0, 118.0, model, coefficients)
    poses = [ros_world.pose(index) for index in (*MAPPED, *HELD_OUT)]
    frames = [ros_world.frame_from(pose, (i + 1) * 10**9, camera=camera) for i, pose in enumerate(poses)]
    recording = open_recording(_bag(tmp_path / "bag", _without_depth(frames)))
    assert next(iter(recording.frames())).camera == camera
    assert_queries_are_found(recording, network)


def test_path_without_times_is_told(corner: list[Frame], tmp_path: Path) -> None:
    planned = [dataclasses.replace(frame, stamp_ns=0) for frame in corner]
    with RawBag(tmp_path / "bag") as bag:
        for frame in corner[:2]:
            head = bag_messages.header(frame.stamp_ns, "cam")
            bag.add("/cam/image", frame.stamp_ns, bag_messages.image_message(head, frame.image_rgb))
            bag.add("/cam/camera_info", frame.stamp_ns, bag_messages.info_message(head, frame.camera))
        bag.add_path("/plan", 5, "map", planned)
    with pytest.raises(RecordingError, match=r"/plan have no times of their own \(8 poses, 1 stamps\)"):
        open_recording(bag.folder).require_poses()
