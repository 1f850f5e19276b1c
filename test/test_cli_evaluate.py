"""``evaluate`` and ``report`` as a user runs them: pages, files, baselines, truths from files, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_world
import torch
from small_recordings import STEP_NS, pose_line, stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.geometry import Pose
from nre_ros.recordings import Frame
from nre_ros.recordings.bag_writer import BagWriter

MAP_FRAMES, QUERIES = 4, 6
QUICK = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    indices = [*np.linspace(0, 5, MAP_FRAMES), *np.linspace(0.7, 4.4, QUERIES)]
    return [ros_world.frame(float(index), stamp_ns(i), noise_seed=i) for i, index in enumerate(indices)]


@pytest.fixture(scope="module")
def recording(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tum(tmp_path_factory.mktemp("recordings") / "corner", frames, queries=QUERIES)


@pytest.fixture(scope="module")
def elsewhere(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another place: the same cameras see noise."""
    rng = np.random.default_rng(0)
    noisy = [replace(f, image_rgb=rng.integers(0, 256, f.image_rgb.shape, np.uint8)) for f in frames[-2:]]
    return write_tum(tmp_path_factory.mktemp("recordings") / "noise", noisy)


@pytest.fixture(scope="module")
def map_path(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "corner"
    assert main(["build-map", str(recording), "-o", str(path), "--split", "map"]) == 0
    return path


def evaluate(recording: Path, map_path: Path, *words: object) -> int:
    argv = ["evaluate", recording, "--map", map_path, "--split", "query", *QUICK, *words]
    return main([str(word) for word in argv])


def figures_of(recording: Path, map_path: Path, file: Path, *words: object) -> dict[str, Any]:
    assert evaluate(recording, map_path, "--json", file, *words) == 0
    text = file.read_text()
    assert "NaN" not in text and "Infinity" not in text
    figures: dict[str, Any] = json.loads(text)
    return figures


def refusal(capsys: pytest.CaptureFixture[str], recording: Path, map_path: Path, *words: object) -> str:
    """What is said, in one last line, when there is nothing to tell."""
    capsys.readouterr()
    assert evaluate(recording, map_path, *words) == 1
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()[-1]


class Page(HTMLParser):
    """What a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.images += [value or "" for name, value in attrs if name == "src"]
        self.links += [value or "" for name, value in attrs if name == "href"]


def test_one_page_and_files_for_other_tools(
    recording: Path, elsewhere: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, tracks, pictures = tmp_path / "page.html", tmp_path / "tracks", tmp_path / "pictures"
    words = ["--negatives", elsewhere, "--report", page, "--trajectories", tracks, "--pictures", pictures]
    figures = figures_of(recording, map_path, tmp_path / "out.json", *words)
    assert figures["negatives"]["noise"]["queries"] == 1 and figures["negatives"]["noise"]["accepted"] == 0
    assert figures["coverage"] == 1 and figures["intervals"]["coverage"][0] < 0.7, "six queries prove little"
    assert figures["nees"]["count"] == figures["accepted"] == QUERIES
    assert figures["retrieval"]["recall"]["5"] == 1.0
    assert figures["risk"]["false_accepts"] is not None
    text = page.read_text()
    content = Page(text)
    assert content.links == [] and len(content.images) >= 6 + QUERIES
    assert all(image.startswith("data:image/") for image in content.images)
    assert not re.search(r"url\(|@import", text)
    printed = capsys.readouterr().out
    for label in ("accepted of noise", "NEES of the accepted", "latency p50 / p95 / p99", "peak memory"):
        assert label in text and label in printed
    assert {file.name for file in pictures.iterdir()} == {"map.png", "trajectory.png", "health.png", "overlay.png"}
    assert len(np.loadtxt(tracks / "accepted.tum")) == QUERIES


def test_the_same_figures_again_and_a_baseline_that_holds(
    recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    first = figures_of(recording, map_path, old)
    second = figures_of(recording, map_path, new, "--baseline", old)
    timed = {"latency_ms", "stages_ms", "peak_memory_mb", "peak_gpu_mb", "answers"}
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}
    told = capsys.readouterr().out
    assert "  same    recall 0.05m_5deg 1 -> 1" in told and "worse" not in told


def test_a_regression_is_exit_code_1_with_what_became_worse(
    recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    figures_of(recording, map_path, old)
    assert evaluate(recording, map_path, "--degrade", "dark:0", "--json", new, "--baseline", old) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("nre_ros evaluate: worse than ") and "coverage 1 -> 0" in said
    assert json.loads(new.read_text())["accepted"] == 0, "what was found is written all the same"


def test_truth_from_a_file_in_another_frame_needs_to_be_aligned(
    recording: Path, frames: list[Frame], map_path: Path, tmp_path: Path
) -> None:
    """Without poses of its own, with a trajectory at other stamps, turned, moved and scaled."""
    bare = Path(shutil.copytree(recording, tmp_path / "bare"))
    (bare / "groundtruth.txt").unlink()
    turn = Pose.exp(torch.tensor([0.2, -0.4, 1.0, 0, 0, 0], dtype=torch.float64))
    lines = []
    for frame in frames[MAP_FRAMES:]:
        assert frame.map_from_cam is not None
        pose = Pose(turn.rotation @ frame.map_from_cam.rotation, turn.rotation @ frame.map_from_cam.translation * 3 + 1)
        lines += [pose_line(frame.stamp_ns + shift, pose) for shift in (-STEP_NS // 10, STEP_NS // 10)]
    file = tmp_path / "truth.tum"
    file.write_text("\n".join(lines))
    unaligned = figures_of(bare, map_path, tmp_path / "a.json", "--ground-truth", file)
    assert unaligned["wrong"] == QUERIES
    aligned = figures_of(bare, map_path, tmp_path / "b.json", "--ground-truth", file, "--align", "sim3")
    assert aligned["alignment"]["scale"] == pytest.approx(1 / 3, abs=0.01)
    assert aligned["recall"]["0.05m_5deg"] == 1.0 and aligned["retrieval"]["recall"]["5"] == 1.0


def test_truths_that_are_none_are_told(
    recording: Path, frames: list[Frame], map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "truth.tum"
    pose = frames[0].map_from_cam
    assert pose is not None
    file.write_text("\n".join(pose_line(stamp_ns(i), pose) for i in range(MAP_FRAMES + QUERIES)))
    assert "the ground truth is a constant" in refusal(capsys, recording, map_path, "--ground-truth", file)
    file.write_text("\n".join(pose_line(stamp_ns(i) + 10**12, pose) for i in range(5)))
    assert "do not overlap in time" in refusal(capsys, recording, map_path, "--ground-truth", file)
    file.write_text("")
    assert "holds no pose" in refusal(capsys, recording, map_path, "--ground-truth", file)
    assert "cannot be read" in refusal(capsys, recording, map_path, "--ground-truth", tmp_path / "none.tum")
    words = ["--ground-truth", file, "--ground-truth-extrinsics", "1 2 3"]
    assert "expected seven numbers" in refusal(capsys, recording, map_path, *words)


def test_bags_of_other_frames_or_without_extrinsics_are_told(
    frames: list[Frame], map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / "bag"
    with BagWriter(bag) as writer:
        for frame in frames[MAP_FRAMES:]:
            writer.write_frame(frame, role="query")
    assert "nowhere" in refusal(capsys, bag, map_path, "--map-frame", "nowhere")
    assert "other_base" in refusal(
        capsys, bag, map_path, "--pose-topic", "/ground_truth/pose", "--base-frame", "other_base"
    )
    assert evaluate(bag, map_path, "--pose-topic", "/ground_truth/pose") == 0


def test_an_empty_set_of_queries_is_told(
    recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(recording, tmp_path / "copy"))
    (copy / "split.txt").write_text((copy / "split.txt").read_text().replace("query", "map"))
    assert "has no role 'query'" in refusal(capsys, copy, map_path)
    (copy / "split.txt").write_text("1.0 query\n")
    assert "has no query" in refusal(capsys, copy, map_path)


def test_all_scenes_with_one_command(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes, out = tmp_path / "data" / "eval", tmp_path / "out"
    for name in ("first", "second"):
        shutil.copytree(recording, scenes / name)
    monkeypatch.setenv("NRE_ROS_DATA", str(tmp_path))
    argv = ["report", "-o", str(out), "--every", "3", "--without-unit", "second"]
    assert main(argv) == 0
    assert Page((out / "index.html").read_text()).links == ["first.html", "second.html"]
    assert json.loads((out / "first.json").read_text())["negatives"]["second"]["queries"] == 2
    assert [json.loads((out / f"{n}.json").read_text())["unit"] for n in ("first", "second")] == ["metre", "arbitrary"]
    assert ["recall 0.25m 2deg" in (out / f"{n}.html").read_text() for n in ("first", "second")] == [True, False]
    before = (out / "first.html").stat().st_mtime_ns
    (out / "second.json").unlink()
    capsys.readouterr()
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert "first.json is there already" in told and "build-map" not in told and "nre_ros evaluate" in told
    assert (out / "first.html").stat().st_mtime_ns == before
    # a build that was interrupted leaves keyframes and no map
    (out / "maps" / "second" / "map.safetensors").unlink()
    (out / "maps" / "second" / "journal").mkdir()
    assert main(argv) == 0 and "build-map" in capsys.readouterr().out
    assert (out / "maps" / "second" / "map.safetensors").exists()
    assert main([*argv, "--only", "third"]) == 1
    (scenes / "second" / "split.txt").unlink()
    assert main(argv) == 1
    assert "expected map and query" in capsys.readouterr().err


@pytest.mark.parametrize("odometry", [True, False])
def test_through_the_node(
    odometry: bool, frames: list[Frame], map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real node in its own process says what the localizer says; its transforms agree with its poses."""
    pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    pytest.importorskip("tf2_msgs", reason="tf2_msgs is not installed; make setup generates it")
    bag = tmp_path / "bag"
    with BagWriter(bag, pose_mode="odom_tf" if odometry else "none") as writer:
        for frame in frames[MAP_FRAMES:]:
            writer.write_frame(frame, role="query")
    words = ["--pose-topic", "/ground_truth/pose"]
    offline = figures_of(bag, map_path, tmp_path / "offline.json", *words)
    figures = figures_of(bag, map_path, tmp_path / "node.json", *words, "--through-node", "--node-set", "mode=global")
    assert figures["link"] == ("map -> odom" if odometry else "map -> base_link")
    assert figures["accepted"] == offline["accepted"] == QUERIES
    assert figures["median_translation"] == pytest.approx(offline["median_translation"], abs=1e-3)
    assert figures["transform"]["recall"]["0.05m_5deg"] == 1.0
    assert figures["nees"]["count"] == QUERIES, "of the published covariances"
    assert figures["nees"]["mean"] == pytest.approx(offline["nees"]["mean"], rel=1e-3)
    for part in ("rotation", "translation"):
        assert figures["nees"]["observed"][part] == offline["nees"]["observed"][part]
    assert "the node, over DDS" in capsys.readouterr().out


def test_queries_without_a_pose_at_their_time_are_left_out(
    recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(recording, tmp_path / "copy"))
    lines: Sequence[str] = (copy / "groundtruth.txt").read_text().splitlines()
    (copy / "groundtruth.txt").write_text("\n".join(lines[:-2]))
    assert figures_of(copy, map_path, tmp_path / "out.json")["queries"] == QUERIES - 2
    assert "2 of 6 images" in capsys.readouterr().err
