"""``build-map`` interrupted at any moment goes on with the same command, and never from other keyframes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
from recording_formats import write_colmap
from small_recordings import stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.mapping import load_map
from nre_ros.recordings import open_recording

FRAMES = 8
OPTIONS = ["--set", "keyframe_motion=0", "--set", "points_per_keyframe=300"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [ros_world.frame(0.7 * i, stamp_ns(i), noise_seed=i) for i in range(FRAMES)]
    return write_tum(tmp_path_factory.mktemp("recordings") / "corner", frames, queries=0)


def journaled(path: Path) -> int:
    return len(list((path / "journal").glob("*.safetensors")))


def started(recording: Path, path: Path) -> subprocess.Popen[str]:
    words = ["build-map", str(recording), "-o", str(path), *OPTIONS]
    return subprocess.Popen([sys.executable, "-m", "nre_ros.cli.main", *words], stderr=subprocess.PIPE, text=True)


def ended_at(recording: Path, path: Path, count: int, number: int) -> tuple[int, str]:
    """Exit code and stderr of a run that gets the signal when ``count`` keyframes are on disk."""
    with started(recording, path) as child:
        while journaled(path) < count and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(number)
        _, text = child.communicate(timeout=30)
    return child.returncode, text


def test_killed_runs_go_on_and_make_the_map_of_an_unbroken_one(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map"
    code, _ = ended_at(recording, path, 1, signal.SIGKILL)
    assert code == -signal.SIGKILL
    first = journaled(path)
    assert first >= 1

    code, text = ended_at(recording, path, first + 2, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert f"found {first} keyframes of an interrupted run" in text
    second = journaled(path)
    assert second >= first + 2
    assert f"{second} keyframes are kept" in text and "Traceback" not in text

    code, _ = ended_at(recording, path, FRAMES, signal.SIGKILL)  # all frames are seen: killed in the building
    assert code == -signal.SIGKILL and journaled(path) == FRAMES
    assert main(["build-map", str(recording), "-o", str(path), *OPTIONS]) == 0
    assert main(["build-map", str(recording), "-o", str(tmp_path / "unbroken"), *OPTIONS]) == 0
    assert load_map(path).digest == load_map(tmp_path / "unbroken").digest
    assert not (path / "journal").exists()


def test_a_colmap_model_in_metres_makes_a_map_in_metres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [replace(ros_world.frame(0.7 * i, i), depth_m=None) for i in range(3)]
    folder = write_colmap(tmp_path / "model", frames)
    assert main(["build-map", str(folder), "-o", str(tmp_path / "map"), *OPTIONS]) == 0
    assert load_map(tmp_path / "map").unit == "arbitrary"
    assert main(["build-map", str(folder), "-o", str(tmp_path / "map"), *OPTIONS, "--unit", "metre"]) == 0
    assert load_map(tmp_path / "map").unit == "metre"
    assert main(["convert", str(folder), "-o", str(tmp_path / "bag"), "--unit", "metre"]) == 0
    assert open_recording(tmp_path / "bag").unit == "metre"
    assert main(["build-map", str(folder), "-o", str(tmp_path / "map"), "--sfm", "--unit", "metre"]) == 1
    assert "--sfm-scale" in capsys.readouterr().err


def left_behind(recording: Path, path: Path) -> None:
    ended_at(recording, path, 2, signal.SIGKILL)
    assert journaled(path) >= 2


def test_keyframes_of_other_input_are_refused_until_discarded(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map"
    left_behind(recording, path)
    kept = journaled(path)
    for words, said in (
        ([*OPTIONS, "--set", "points_per_keyframe=301"], "points_per_keyframe was 300, is 301"),
        ([*OPTIONS, "--every", "2"], "'every': 1"),
        ([*OPTIONS, "--frame-id", "odom"], "'frame_id': 'map'"),
    ):
        capsys.readouterr()
        assert main(["build-map", str(recording), "-o", str(path), *words]) == 1
        text = capsys.readouterr().err
        assert said in text and "--fresh" in text and text.count("\n") == 1
        assert journaled(path) == kept
    os.utime(recording / "groundtruth.txt")
    assert main(["build-map", str(recording), "-o", str(path), *OPTIONS]) == 1
    assert "recording changed at" in capsys.readouterr().err
    assert main(["build-map", str(recording), "-o", str(path), *OPTIONS, "--fresh"]) == 0
    assert load_map(path).keyframe_count == FRAMES


def test_input_of_which_no_map_can_be_made_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What must change first is the input: its keyframes must not be taken up again."""
    grey = np.full((240, 320, 3), 128, np.uint8)
    frames = [replace(ros_world.frame(i, stamp_ns(i)), image_rgb=grey) for i in range(3)]
    recording = write_tum(tmp_path / "grey", frames, queries=0)
    assert main(["build-map", str(recording), "-o", str(tmp_path / "map"), *OPTIONS]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "map").exists()


def test_a_full_disk_is_named_and_keeps_what_was_written(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit on file sizes makes the kernel refuse real writes."""
    path = tmp_path / "map"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main(["build-map", str(recording), "-o", str(path), *OPTIONS]) == 1
        assert f"cannot be written to {path}/journal: " in capsys.readouterr().err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert main(["build-map", str(recording), "-o", str(path), *OPTIONS]) == 0
