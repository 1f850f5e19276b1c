"""EuRoC and Cambridge Landmarks folders, made up: poses and cameras as they were, damage told; and poses from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
import torch
import yaml
from small_recordings import CAMERA, STEP_NS, assert_same_pose, make_frames, pose_at, pose_line, stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.errors import CalibrationError, RecordingError
from nre_ros.geometry import Camera, DistortionModel, Pose
from nre_ros.geometry.pose_track import IDENTITY, rigid_from_pose
from nre_ros.recordings import Frame, open_recording
from nre_ros.recordings.compressed import encode_png
from nre_ros.recordings.ground_truth import ReposedRecording

BODY_FROM_CAM = Pose.exp(torch.tensor([0.1, 1.5, -0.3, 0.05, -0.02, 0.1], dtype=torch.float64))


def write_euroc(folder: Path, frames: Sequence[Frame], truth_every_ns: int = STEP_NS // 2) -> Path:
    """Ground truth between the images' stamps, of the body, with the columns of velocity and biases that follow."""
    cam, state = folder / "mav0/cam0", folder / "mav0/state_groundtruth_estimate0"
    (cam / "data").mkdir(parents=True)
    state.mkdir()
    rows = ["#timestamp [ns],filename"]
    for frame in frames:
        (cam / f"data/{frame.stamp_ns}.png").write_bytes(encode_png(frame.image_rgb))
        rows.append(f"{frame.stamp_ns},{frame.stamp_ns}.png")
    (cam / "data.csv").write_text("\r\n".join(rows) + "\r\n")
    c = frames[0].camera
    sensor = {
        "sensor_type": "camera",
        "T_BS": {"cols": 4, "rows": 4, "data": BODY_FROM_CAM.matrix().flatten().tolist()},
        "resolution": [c.width, c.height],
        "camera_model": "pinhole",
        "intrinsics": [c.fx, c.fy, c.cx, c.cy],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": c.coefficients()[:4].tolist(),
    }
    (cam / "sensor.yaml").write_text("#Default imu sensor yaml file\n" + yaml.safe_dump(sensor))
    lines = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"]
    poses = {f.stamp_ns: f.map_from_cam for f in frames}
    for stamp in range(frames[0].stamp_ns - truth_every_ns, frames[-1].stamp_ns + STEP_NS, truth_every_ns):
        map_from_cam = poses.get(stamp) or (pose_at(stamp) if truth_every_ns < STEP_NS else None)
        if map_from_cam is None:
            continue
        body = map_from_cam @ BODY_FROM_CAM.inverse()
        x, y, z, w = body.quat_xyzw().tolist()
        numbers = [*body.translation.tolist(), w, x, y, z, 0.1, 0.2, 0.3]
        lines.append(",".join([str(stamp), *map(repr, numbers)]))
    (state / "data.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_cambridge(folder: Path, frames: Sequence[Frame], queries: int, *, model: bool = True) -> Path:
    tables: dict[str, list[str]] = {"train": [], "test": []}
    cameras = []
    for i, frame in enumerate(frames):
        assert frame.map_from_cam is not None
        name = f"seq{1 + (i >= len(frames) - queries)}/frame{i:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(frame.image_rgb))
        x, y, z, w = frame.map_from_cam.inverse().quat_xyzw().tolist()
        centre = frame.map_from_cam.translation.tolist()
        numbers = " ".join(repr(v) for v in (*centre, w, x, y, z))
        tables["test" if i >= len(frames) - queries else "train"].append(f"{name} {numbers}")
        focal = frame.camera.fx
        turned = f"{w} {x} {y} {z} {' '.join(map(repr, centre))}"
        cameras.append(f"{name.replace('.png', '.jpg')}\t{focal!r} {turned} -0.01 0 ")
    for name, lines in tables.items():
        head = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        (folder / f"dataset_{name}.txt").write_text("\n".join([*head, *lines]) + "\n")
    if model:
        (folder / "reconstruction.nvm").write_text("\n".join(["NVM_V3 ", "", str(len(frames)), *cameras, "", "0", ""]))
    return folder


def pinhole(frames: Sequence[Frame]) -> list[Frame]:
    """With the principal point in the middle and square pixels, as Cambridge has them."""
    camera = Camera(CAMERA.width, CAMERA.height, 30.0, 30.0, (CAMERA.width - 1) / 2, (CAMERA.height - 1) / 2)
    return [replace(frame, camera=camera) for frame in frames]


def test_euroc_poses_are_interpolated_and_carried_from_the_body_to_the_camera(tmp_path: Path) -> None:
    frames = make_frames(4)
    folder = write_euroc(tmp_path / "MH_01", frames, truth_every_ns=STEP_NS * 3 // 10)
    for path in (folder, folder / "mav0"):
        read = list(open_recording(path).frames())
        assert len(read) == 4
        for actual, expected in zip(read, frames, strict=True):
            assert actual.stamp_ns == expected.stamp_ns
            np.testing.assert_array_equal(actual.image_rgb, expected.image_rgb)
            assert actual.map_from_cam is not None and expected.map_from_cam is not None
            # the camera turns about the body's origin, so that the line between two samples is not quite its path
            assert_same_pose(actual.map_from_cam, expected.map_from_cam, 1e-4)
        assert read[0].camera.model is DistortionModel.PLUMB_BOB
        assert read[0].camera.distortion == CAMERA.distortion[:4]


def test_euroc_without_extrinsics_is_refused(tmp_path: Path) -> None:
    folder = write_euroc(tmp_path, make_frames(2))
    sensor = folder / "mav0/cam0/sensor.yaml"
    content = yaml.safe_load(sensor.read_text())
    sensor.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "T_BS"}))
    with pytest.raises(CalibrationError, match="no usable T_BS"):
        open_recording(folder)
    sensor.write_text(yaml.safe_dump(content | {"distortion_model": "fov"}))
    with pytest.raises(CalibrationError, match="distortion_model 'fov'"):
        open_recording(folder)


def test_euroc_without_truth_has_no_poses(tmp_path: Path) -> None:
    folder = write_euroc(tmp_path, make_frames(2))
    (folder / "mav0/state_groundtruth_estimate0/data.csv").unlink()
    recording = open_recording(folder)
    assert [frame.map_from_cam for frame in recording.frames()] == [None, None]
    with pytest.raises(RecordingError, match="so its images have no poses"):
        recording.require_poses()


def test_cambridge_centres_and_rotations(tmp_path: Path) -> None:
    frames = pinhole(make_frames(5))
    recording = open_recording(write_cambridge(tmp_path, frames, queries=2))
    assert (recording.count("map"), recording.count("query")) == (3, 2)
    for actual, expected in zip(recording.frames(), frames, strict=True):
        assert actual.camera == expected.camera
        assert actual.map_from_cam is not None and expected.map_from_cam is not None
        assert_same_pose(actual.map_from_cam, expected.map_from_cam)


def test_cambridge_without_focal_lengths_is_refused(tmp_path: Path) -> None:
    folder = write_cambridge(tmp_path, pinhole(make_frames(3)), queries=1, model=False)
    with pytest.raises(CalibrationError, match=r"reconstruction\.nvm does not exist"):
        open_recording(folder)
    (folder / "dataset_test.txt").write_text("a\nb\n\nseq1/frame00000.png 1 2 3\n")
    with pytest.raises(RecordingError, match="line 4"):
        open_recording(folder)


@pytest.mark.parametrize("kind", ["euroc", "cambridge"])
def test_they_localize(kind: str, tmp_path: Path) -> None:
    """From the folder to a map, and answers near the truth."""
    indices = [*np.linspace(0, 5, 4), 1.3, 3.1]
    frames = [ros_world.frame(float(index), stamp_ns(i), noise_seed=i) for i, index in enumerate(indices)]
    if kind == "euroc":
        folder = write_euroc(tmp_path / "in", frames, truth_every_ns=STEP_NS)
        (folder / "split.txt").write_text(
            "\n".join(f"{frame.stamp_ns}.png {'map' if i < 4 else 'query'}" for i, frame in enumerate(frames))
        )
    else:
        folder = write_cambridge(tmp_path / "in", frames, queries=2)
    assert main(["build-map", str(folder), "-o", str(tmp_path / "map"), "--split", "map"]) == 0
    quick = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]
    argv = ["evaluate", str(folder), "--map", str(tmp_path / "map"), "--split", "query", *quick]
    assert main([*argv, "--json", str(tmp_path / "out.json")]) == 0
    assert '"recall": {\n  "0.05m_5deg": 1.0' in (tmp_path / "out.json").read_text()


def test_poses_from_a_tum_file_are_interpolated_and_carried_to_the_camera(tmp_path: Path) -> None:
    frames = make_frames(4)
    folder = write_tum(tmp_path / "in", [replace(frame, map_from_cam=None) for frame in frames])
    stamps = [stamp_ns(0) + i * STEP_NS * 3 // 10 for i in range(-1, 12)]
    file = tmp_path / "truth.tum"
    file.write_text("\n".join(pose_line(s, pose_at(s)) for s in stamps))
    read = list(ReposedRecording(open_recording(folder), file, IDENTITY).frames())
    for actual, expected in zip(read, frames, strict=True):
        assert actual.map_from_cam is not None and expected.map_from_cam is not None
        assert_same_pose(actual.map_from_cam, expected.map_from_cam, 1e-8)
    moved = ReposedRecording(open_recording(folder), file, rigid_from_pose(BODY_FROM_CAM))
    first = next(moved.frames()).map_from_cam
    assert first is not None
    assert_same_pose(first, pose_at(stamp_ns(0)) @ BODY_FROM_CAM, 1e-8)


def test_poses_by_name_are_of_the_camera_from_the_map(tmp_path: Path) -> None:
    frames = make_frames(3)
    folder = write_tum(tmp_path / "in", frames)
    lines = []
    for i, pose in enumerate(pose_at(stamp_ns(i + 5)).inverse() for i in range(2)):
        x, y, z, w = pose.quat_xyzw().tolist()
        lines.append(" ".join([f"rgb/{i}.png", *map(repr, [w, x, y, z, *pose.translation.tolist()]), "525.0"]))
    file = tmp_path / "pgt.txt"
    file.write_text("\n".join(lines) + "\n")
    recording = ReposedRecording(open_recording(folder), file, IDENTITY)
    poses = [frame.map_from_cam for frame in recording.frames()]
    assert poses[0] is not None and poses[1] is not None and poses[2] is None
    assert_same_pose(poses[1], pose_at(stamp_ns(6)))
    assert recording.problems == [f"1 of 3 images have no pose in {file}"]


def test_a_truth_of_another_time_or_other_names_is_refused(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "in", make_frames(3))
    file = tmp_path / "truth.txt"
    for line, said in (
        (pose_line(stamp_ns(0) + 10**12, pose_at(0)), "the two do not overlap in time"),
        ("other.png 1 0 0 0 0 0 0", "its names, such as other.png, are none of the images' names"),
    ):
        file.write_text(f"# comment\n{line}\n")
        with pytest.raises(RecordingError, match=said):
            list(ReposedRecording(open_recording(folder), file, IDENTITY).frames())
    for text, said in (("", "holds no pose"), ("1.0 2 3", "line 1"), ("a.png 1 0 0 0 0 0", "line 1")):
        file.write_text(text)
        with pytest.raises(RecordingError, match=said):
            ReposedRecording(open_recording(folder), file, IDENTITY)


def test_query_lists_have_cameras_but_no_poses_and_become_a_submission(tmp_path: Path) -> None:
    """As in Aachen: the list in queries/, the images in images_upright/, COLMAP's pixel convention."""
    indices = [*np.linspace(0, 5, 4), 1.3, 3.1]
    frames = [ros_world.frame(float(index), stamp_ns(i), noise_seed=i) for i, index in enumerate(indices)]
    folder = write_tum(tmp_path / "in", frames, queries=2)
    root, c = tmp_path / "aachen", frames[0].camera
    (root / "queries").mkdir(parents=True)
    lines = []
    for i, frame in enumerate(frames[4:]):
        (root / "images_upright/query/day").mkdir(parents=True, exist_ok=True)
        (root / f"images_upright/query/day/{i}.png").write_bytes(encode_png(frame.image_rgb))
        lines.append(f"query/day/{i}.png PINHOLE {c.width} {c.height} {c.fx} {c.fy} {c.cx + 0.5} {c.cy + 0.5}")
    listed = root / "queries/day_time_queries_with_intrinsics.txt"
    listed.write_text("\n".join(lines) + "\n")
    read = list(open_recording(listed).frames())
    assert [frame.map_from_cam for frame in read] == [None, None]
    np.testing.assert_allclose(read[0].camera.matrix(), c.matrix())
    assert main(["build-map", str(folder), "-o", str(tmp_path / "map"), "--split", "map"]) == 0
    quick = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]
    submission = tmp_path / "Aachen_v1_1_eval_nre.txt"
    argv = ["localize", str(listed), "--map", str(tmp_path / "map"), "--submission", str(submission), *quick]
    assert main(argv) == 0
    for line, frame in zip(submission.read_text().splitlines(), frames[4:], strict=True):
        w, x, y, z, *xyz = (float(v) for v in line.split()[1:])
        cam_from_map = Pose.from_quat_xyzw(torch.tensor(xyz).double(), torch.tensor([x, y, z, w]).double())
        assert frame.map_from_cam is not None
        assert_same_pose(cam_from_map.inverse(), frame.map_from_cam, 0.03)
    listed.write_text("gone.png PINHOLE 320 240 1 1 1 1\n")
    with pytest.raises(RecordingError, match="lie neither beside it"):
        open_recording(listed)
