"""``nre_ros convert``: the new bag holds what the recording held, or nothing is made."""

import os
from pathlib import Path

import pytest
from small_recordings import assert_same_frame, make_frames, stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.recordings import open_recording
from nre_ros.recordings.bag import BagRecording
from nre_ros.recordings.bag_reader import BagReader

DATA = Path(os.environ.get("NRE_ROS_DATA", "")) / "data/eval"
needs_data = pytest.mark.skipif("NRE_ROS_DATA" not in os.environ, reason="NRE_ROS_DATA names no folder with data")


@pytest.fixture
def folder(tmp_path):
    return write_tum(tmp_path / "desk", make_frames(4, depth=True))


@pytest.mark.parametrize("options", [(), ("--storage", "sqlite3"), ("--compressed",), ("--pose-mode", "odom_tf")])
def test_the_bag_holds_the_same_frames(folder, tmp_path, options, capsys):
    bag = tmp_path / "bag"
    assert main(["convert", str(folder), "-o", str(bag), *options]) == 0
    recording = open_recording(bag)
    for actual, expected in zip(recording.frames(), make_frames(4, depth=True), strict=True):
        assert_same_frame(actual, expected)
    assert recording.roles == open_recording(folder).roles
    output = capsys.readouterr()
    assert output.out == f"{bag}: 4 images, 4 with pose, 4 with depth, unit metre\n"
    assert output.err == ""


def test_split_keeps_one_role_and_bags_convert_too(folder, tmp_path):
    assert main(["convert", str(folder), "-o", str(tmp_path / "all")]) == 0
    for source in (folder, tmp_path / "all"):
        target = tmp_path / f"{source.name}_map"
        assert main(["convert", str(source), "-o", str(target), "--split", "map"]) == 0
        assert [f.stamp_ns for f in open_recording(target).frames()] == [stamp_ns(i) for i in range(3)]


def test_topics_of_the_source_can_be_named(folder, tmp_path, capsys):
    bag, second = str(tmp_path / "bag"), str(tmp_path / "second")
    assert main(["convert", str(folder), "-o", bag]) == 0
    assert main(["convert", bag, "-o", second, "--depth-topic", "none", "--pose-topic", "/ground_truth/pose"]) == 0
    assert "4 images, 4 with pose, 0 with depth" in capsys.readouterr().out
    assert main(["convert", bag, "-o", second, "--overwrite", "--image-topic", "/nothing"]) == 1
    assert "no messages on /nothing (--image-topic)" in capsys.readouterr().err


def test_compressed_passes_the_image_files_on(folder, tmp_path):
    main(["convert", str(folder), "-o", str(tmp_path / "bag"), "--compressed"])
    bag = BagReader(tmp_path / "bag")
    stored = [bag.decode(*item).data.tobytes() for item in bag.messages("/camera/image_raw/compressed")]
    assert stored == [(folder / f"rgb/{i}.png").read_bytes() for i in range(4)]


def test_problems_are_told_and_the_rest_is_converted(folder, tmp_path, capsys):
    (folder / "rgb/1.png").write_bytes(b"")
    assert main(["convert", str(folder), "-o", str(tmp_path / "bag")]) == 0
    output = capsys.readouterr()
    assert "3 images" in output.out
    assert len(output.err.splitlines()) == 1 and "rgb/1.png is left out" in output.err


def test_failure_is_one_line_and_leaves_nothing(folder, tmp_path, capsys):
    bag = tmp_path / "bag"
    for arguments in ([str(folder), "--split", "test"], [str(tmp_path / "nowhere")], [str(folder / "rgb")]):
        assert main(["convert", *arguments, "-o", str(bag)]) == 1
        output = capsys.readouterr()
        assert output.out == "" and len(output.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_existing_bag_is_kept_unless_told(folder, tmp_path, capsys):
    bag = tmp_path / "bag"
    main(["convert", str(folder), "-o", str(bag)])
    assert main(["convert", str(folder), "-o", str(bag), "--split", "map"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert BagRecording(bag).count() == 4
    assert main(["convert", str(folder), "-o", str(bag), "--split", "map", "--overwrite"]) == 0
    assert BagRecording(bag).count() == 3


@needs_data
@pytest.mark.parametrize(
    ("scene", "compressed"), [("fox", False), ("fox", True), ("street_kitti", False), ("street_kitti", True)]
)
def test_real_scenes_survive_the_round_trip(scene, compressed, tmp_path):
    """Identical pixels, cameras and stamps; poses to 1e-9; roles."""
    options = ["--compressed"] if compressed else []
    assert main(["convert", str(DATA / scene), "-o", str(tmp_path / "bag"), *options]) == 0
    source, bag = open_recording(DATA / scene), open_recording(tmp_path / "bag")
    assert bag.roles == source.roles and bag.problems == []
    for actual, expected in zip(bag.frames(), source.frames(), strict=True):
        assert_same_frame(actual, expected, 1e-9)
