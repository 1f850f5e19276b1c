"""Keyframes on disk: whole or not there, whatever ends the process, and never mixed with others."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
import torch

from nre_ros.config import BuilderConfig, with_values
from nre_ros.errors import MapError
from nre_ros.features import FeatureNetwork
from nre_ros.mapping import MapBuilder
from nre_ros.mapping.builder import Keyframe
from nre_ros.mapping.journal import KeyframeJournal, OtherSession, discard, session_facts, set_aside
from nre_ros.mapping.keyframe_file import byte_size, read_keyframe, write_keyframe

CONFIG = with_values(BuilderConfig(), {"keyframe_motion": 0.0, "points_per_keyframe": 300})
FACTS = {"source": "test"}


@pytest.fixture(scope="module")
def keyframes(network: FeatureNetwork) -> list[Keyframe]:
    kept: list[Keyframe] = []
    builder = MapBuilder(network, CONFIG, keyframes=kept)
    for index in range(4):
        builder.add(ros_world.frame(index, index * 10**9))
    assert len(kept) == 4
    return kept


def assert_same(a: Keyframe, b: Keyframe) -> None:
    assert (a.stamp_ns, a.camera) == (b.stamp_ns, b.camera)
    assert torch.equal(a.map_from_cam.matrix(), b.map_from_cam.matrix())
    np.testing.assert_array_equal(a.keypoints.uv_px, b.keypoints.uv_px)
    for name in ("depth", "coarse", "fine", "context"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(a.keypoints.descriptors, b.keypoints.descriptors)


def test_a_keyframe_comes_back_as_it_was(keyframes: list[Keyframe], tmp_path: Path) -> None:
    write_keyframe(keyframes[0], tmp_path / "k")
    assert_same(read_keyframe(tmp_path / "k"), keyframes[0])
    assert [path.name for path in tmp_path.iterdir()] == ["k"]
    assert byte_size(keyframes[0]) < (tmp_path / "k").stat().st_size < byte_size(keyframes[0]) + 4096


def test_an_interrupted_session_is_taken_up_and_makes_the_same_map(network: FeatureNetwork, tmp_path: Path) -> None:
    frames = [ros_world.frame(index, index * 10**9) for index in range(4)]
    whole = MapBuilder(network, CONFIG)
    for frame in frames:
        whole.add(frame)
    facts = session_facts(network, CONFIG, source="test")
    for half in (frames[:2], frames[2:]):
        journal = KeyframeJournal(tmp_path / "map" / "journal", facts)
        builder = MapBuilder(network, CONFIG, keyframes=journal)
        for frame in half:
            builder.add(frame)
        assert journal.waiting == journal.bytes_in_memory == 0
        journal.close()
    assert journal.resumed == 2
    assert builder.build().digest == whole.build().digest
    journal.remove()
    assert list((tmp_path / "map").iterdir()) == []


def test_other_sessions_are_named_and_set_aside_and_never_mixed(keyframes: list[Keyframe], tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    first = KeyframeJournal(folder, FACTS)
    first.append(keyframes[0])
    with pytest.raises(MapError, match="another process is mapping"):
        KeyframeJournal(folder, FACTS)
    first.close()
    with pytest.raises(OtherSession, match=r"holds 1 keyframes .* source was test, is other"):
        KeyframeJournal(folder, {"source": "other"})
    assert set_aside(folder) == tmp_path / "journal-1"
    assert len(KeyframeJournal(folder, {"source": "other"})) == 0
    assert len(KeyframeJournal(tmp_path / "journal-1", FACTS)) == 1


def test_of_the_journals_set_aside_the_newest_two_stay(keyframes: list[Keyframe], tmp_path: Path) -> None:
    folder, said = tmp_path / "journal", []
    (tmp_path / "journal-of-mine").mkdir()
    for i, keyframe in enumerate(keyframes):
        journal = KeyframeJournal(folder, FACTS)
        journal.append(keyframe)
        journal.close()
        assert set_aside(folder, said.append) == tmp_path / f"journal-{i + 1}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal-3", "journal-4", "journal-of-mine"]
    assert_same(KeyframeJournal(tmp_path / "journal-4", FACTS)[0], keyframes[3])
    assert len(said) == 2 and "1 keyframes" in said[0] and "journal-1, are deleted" in said[0]


def test_a_changed_parameter_or_network_is_another_session(network: FeatureNetwork) -> None:
    facts = session_facts(network, CONFIG, source="test")
    assert facts == session_facts(network, with_values(CONFIG, {"device": "cpu"}), source="test")
    changed = session_facts(network, with_values(CONFIG, {"points_per_keyframe": 301}), source="test")
    assert {name for name in facts if facts[name] != changed[name]} == {"points_per_keyframe"}
    assert network.weights_hash in facts["network"]


def test_an_empty_session_gives_way_to_any_other(tmp_path: Path) -> None:
    KeyframeJournal(tmp_path / "journal", FACTS).close()
    assert KeyframeJournal(tmp_path / "journal", {"source": "other"}).resumed == 0


def test_another_camera_begins_anew_and_keeps_the_old_keyframes(keyframes: list[Keyframe], tmp_path: Path) -> None:
    folder, said = tmp_path / "journal", []
    first = KeyframeJournal(folder, FACTS)
    first.append(keyframes[0])
    first.close()
    second = KeyframeJournal(folder, FACTS, said.append)
    second.append(replace(keyframes[1], camera=replace(keyframes[1].camera, fx=300.0)))
    assert len(second) == 1 and second.waiting == 0
    assert "camera is another" in said[0] and "journal-1" in said[0]
    assert_same(KeyframeJournal(tmp_path / "journal-1", FACTS)[0], keyframes[0])
    second.append(keyframes[2])
    assert len(second) == 2, "a second camera within one session is the user's choice"


def test_a_damaged_file_is_left_out_by_name(keyframes: list[Keyframe], tmp_path: Path) -> None:
    folder, said = tmp_path / "journal", []
    first = KeyframeJournal(folder, FACTS)
    for keyframe in keyframes[:3]:
        first.append(keyframe)
    first.close()
    os.truncate(folder / "000001.safetensors", 1000)
    second = KeyframeJournal(folder, FACTS, said.append)
    assert [k.stamp_ns for k in second] == [keyframes[0].stamp_ns, keyframes[2].stamp_ns]
    assert "000001.safetensors is damaged" in said[0]
    second.append(keyframes[3])
    assert (folder / "000003.safetensors").exists()


def test_a_full_disk_keeps_keyframes_in_memory_until_there_is_room(keyframes: list[Keyframe], tmp_path: Path) -> None:
    """The limit on file sizes makes the kernel refuse real writes."""
    folder = tmp_path / "journal"
    journal = KeyframeJournal(folder, FACTS)
    journal.append(keyframes[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for keyframe in keyframes[1:3]:
            journal.append(keyframe)
        assert journal.waiting == 2
        assert journal.bytes_in_memory == byte_size(keyframes[1]) + byte_size(keyframes[2])
        assert str(folder) in journal.trouble and "File too large" in journal.trouble
        assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.flush() and not journal.trouble and journal.bytes_in_memory == 0
    journal.close()
    again = KeyframeJournal(folder, FACTS)
    assert [k.stamp_ns for k in again] == [k.stamp_ns for k in keyframes[:3]]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MapError, match="cannot be used"):
        KeyframeJournal(tmp_path / "file" / "journal", FACTS)


WRITER = """
import sys
from pathlib import Path
from nre_ros.mapping.journal import KeyframeJournal
from nre_ros.mapping.keyframe_file import read_keyframe
keyframe = read_keyframe(Path(sys.argv[1]))
journal = KeyframeJournal(Path(sys.argv[2]), {"source": "test"})
while True:
    journal.append(keyframe)
    print(len(journal), flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_told(keyframes: list[Keyframe], tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write_keyframe(keyframes[0], tmp_path / "k")
    rng = random.Random(0)
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "k"), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            told = int(child.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.1))
            child.kill()
            told = max([told, *(int(line) for line in child.stdout if line.endswith("\n"))])
        journal = KeyframeJournal(folder, FACTS)
        assert told <= len(journal) <= told + 1
        assert_same(journal[-1], keyframes[0])
        assert not list(folder.glob("*.part"))
        journal.close()
    (tmp_path / ".journal-1-removed").mkdir()  # killed while it deleted an older one
    KeyframeJournal(folder, FACTS).close()
    discard(folder)
    assert list(tmp_path.iterdir()) == [tmp_path / "k"]
