"""Bags that were cut off, not closed or damaged: what is there is read exactly, and what is lost is told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from raw_bags import RawBag
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from small_recordings import CAMERA, assert_same_frame, make_frames, stamp_ns

from nre_ros.errors import RecordingError
from nre_ros.recordings import Frame, open_recording
from nre_ros.recordings.bag import BagRecording
from nre_ros.recordings.bag_reader import BagReader
from nre_ros.recordings.bag_writer import BagWriter

SUFFIX = {"mcap": "mcap", "sqlite3": "db3"}
COUNT = 30


def _write(folder: Path, frames: list[Frame], storage: str) -> Path:
    with BagWriter(folder, storage) as writer:
        for frame in frames:
            writer.write_frame(frame)
    return folder


def _cut(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


@pytest.mark.parametrize("storage", SUFFIX)
@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_bag_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, storage: str, share: float) -> None:
    frames = make_frames(COUNT, depth=True)
    folder = _write(tmp_path / "bag", frames, storage)
    file = folder / f"bag.{SUFFIX[storage]}"
    _cut(file, share)
    for path in (folder, file):
        recording = open_recording(path)
        read = list(recording.frames())
        assert 0.3 * share * COUNT < len(read) < COUNT
        for actual, expected in zip(read[:-1], frames, strict=False):
            assert_same_frame(actual, expected)
        assert "is cut off" in recording.problems[0] or "was not closed" in recording.problems[0]
        assert recording.count() >= len(read) and "\n" not in recording.problems[0]
    total = COUNT * 5 + 1
    found = sum(topic.count for topic in BagReader(folder).topics.values())
    told = BagReader(folder).problems[0]
    assert f"{found} of its {total} messages are there" in told and f"{total - found} are lost" in told


@pytest.mark.parametrize("storage", SUFFIX)
@pytest.mark.parametrize("share", [0.0, 0.002])
def test_bag_of_which_nothing_is_left_is_told(tmp_path: Path, storage: str, share: float) -> None:
    folder = _write(tmp_path / "bag", make_frames(COUNT), storage)
    file = folder / f"bag.{SUFFIX[storage]}"
    _cut(file, share)
    for path in (folder, file):
        with pytest.raises(RecordingError, match=r"cannot be read .*ros2 bag reindex") as error:
            open_recording(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("storage", SUFFIX)
def test_bag_that_was_not_closed_is_read(tmp_path: Path, storage: str) -> None:
    """As after the recorder was killed: no metadata.yaml, and no footer."""
    frames = make_frames(COUNT)
    folder = _write(tmp_path / "bag", frames, storage)
    (folder / "metadata.yaml").unlink()
    if storage == "mcap":
        _cut(folder / "bag.mcap", 0.9)
    recording = open_recording(folder)
    read = list(recording.frames())
    assert len(read) == COUNT if storage == "sqlite3" else len(read) > COUNT // 2
    for actual, expected in zip(read[:-1], frames, strict=False):
        assert_same_frame(actual, expected)
    assert "was not closed" in recording.problems[0]
    (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert len(list(open_recording(folder).frames())) == len(read)


def test_folder_with_metadata_alone_is_told(tmp_path: Path) -> None:
    folder = _write(tmp_path / "bag", make_frames(), "mcap")
    (folder / "bag.mcap").unlink()
    with pytest.raises(RecordingError, match="cannot be read"):
        open_recording(folder)


@pytest.mark.parametrize("mode", [CompressionMode.STORAGE, CompressionMode.MESSAGE])
def test_compressed_bag_cut_off_is_read(tmp_path: Path, mode: CompressionMode) -> None:
    """Chunks of about 1 MB: those that are whole are read."""
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    raw = RawBag(tmp_path / "bag")
    raw._writer.set_compression(mode, CompressionFormat.ZSTD)
    with raw:
        for i in range(20):
            raw.add_frames([Frame(stamp_ns(i), image, CAMERA.resized(320, 240))], camera=CAMERA.resized(320, 240))
    _cut(raw.folder / "bag.mcap", 0.6)
    read = list(BagRecording(raw.folder).frames())
    assert 5 <= len(read) < 20
    np.testing.assert_array_equal(read[-1].image_rgb, image)


def test_sqlite_of_a_deep_tree_is_read_where_sqlite_gives_up(tmp_path: Path) -> None:
    """Enough rows that the pages which hold the tree together lie behind the cut."""
    frames = make_frames(1)
    with RawBag(tmp_path / "bag", StoragePlugin.SQLITE3) as bag:
        bag.add_frames(frames)
        for i in range(12000):
            bag.add_tf("/tf", stamp_ns(i), "map", "base_link", (0.1 * i, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    file = bag.folder / "bag.db3"
    _cut(file, 0.25)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(file).execute("SELECT sum(length(data)) FROM messages").fetchall()
    reader = BagReader(bag.folder)
    places = [reader.decode(*item).transforms[0].transform.translation.x for item in reader.messages("/tf")]
    assert 1000 < len(places) == reader.topics["/tf"].count
    np.testing.assert_allclose(places, 0.1 * np.arange(len(places)))


def test_damage_in_the_middle_loses_what_was_there(tmp_path: Path) -> None:
    frames = make_frames(COUNT)
    folder = _write(tmp_path / "bag", frames, "sqlite3")
    data = bytearray((folder / "bag.db3").read_bytes())
    data[len(data) // 2 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 2)
    (folder / "bag.db3").write_bytes(data)
    recording = BagRecording(folder)
    by_stamp = {frame.stamp_ns: frame for frame in frames}
    read = list(recording.frames())
    assert 5 < len(read) < COUNT and "are lost" in recording.problems[0]
    altered = [f for f in read if not np.array_equal(f.image_rgb, by_stamp[f.stamp_ns].image_rgb)]
    assert len(altered) <= 1, "the image that the damage begins in has no checksum; no other may be altered"
