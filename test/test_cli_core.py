"""``build-map``, ``evaluate``, ``localize`` and ``map info``: the way from a recording to figures, and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
from small_recordings import STEP_NS, stamp_ns, stamp_text, write_tum

from nre_ros.cli.main import main
from nre_ros.mapping import load_map
from nre_ros.mapping.map_file import FILE_NAME
from nre_ros.recordings.frame import Frame

MAP_FRAMES, QUERIES = 4, 2
QUICK = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]
Spoil = Callable[[Path], object]


def corner_frames() -> list[Frame]:
    """Frames of a mapping run, then of two places between."""
    indices = [*np.linspace(0, 5, MAP_FRAMES), 1.3, 3.1]
    return [ros_world.frame(float(index), stamp_ns(i), noise_seed=i) for i, index in enumerate(indices)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tum(tmp_path_factory.mktemp("recordings") / "corner", corner_frames(), queries=QUERIES)


@pytest.fixture(scope="module")
def map_path(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "corner"
    assert main(["build-map", str(recording), "-o", str(path), "--split", "map", "--frame-id", "corner"]) == 0
    return path


@pytest.fixture
def spoiled(recording: Path, tmp_path: Path) -> Path:
    """A copy of the recording, to be damaged."""
    return Path(shutil.copytree(recording, tmp_path / "spoiled"))


def refusal(capsys: pytest.CaptureFixture[str], argv: Sequence[object]) -> str:
    """What a command says that fails as it should: exit code 1, nothing on stdout, one line on stderr."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"nre_ros {argv[0]}: ")
    assert output.err.count("\n") == 1 and output.err.endswith("\n")
    return output.err


def test_build_map(map_path: Path) -> None:
    map_ = load_map(map_path)
    assert (map_.frame_id, map_.unit) == ("corner", "metre")
    assert set(map_.keyframe_stamps_ns) <= {stamp_ns(i) for i in range(MAP_FRAMES)}
    assert map_.landmark_count > 300


def test_build_map_takes_parameters(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", "points_per_keyframe=100", "--set", "keyframe_motion=0"]
    assert main(["build-map", str(recording), "-o", str(tmp_path / "map"), *few]) == 0
    output = capsys.readouterr()
    assert f"{MAP_FRAMES + QUERIES} keyframes of {MAP_FRAMES + QUERIES} frames" in output.out
    assert load_map(tmp_path / "map").observation_count <= 100 * (MAP_FRAMES + QUERIES)


def test_evaluate(recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    argv = ["evaluate", recording, "--map", map_path, "--split", "query", "--json", file, *QUICK]
    assert main([str(word) for word in argv]) == 0
    figures = json.loads(file.read_text())
    assert figures["queries"] == figures["accepted"] == QUERIES
    assert set(figures["recall"]) == {"0.05m_5deg", "0.25m_2deg", "0.5m_5deg", "5m_10deg"}
    assert set(figures["recall"].values()) == {1.0}
    assert 0 < figures["median_rotation_deg"] < 0.5
    assert 0 < figures["median_translation"] < 0.02
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p95"]
    for i, line in enumerate(figures["poses"]):
        stamp, *numbers, status, score = line.split()
        assert stamp == stamp_text(stamp_ns(MAP_FRAMES + i))
        truth = ros_world.pose([1.3, 3.1][i])
        np.testing.assert_allclose([float(v) for v in numbers[:3]], truth.translation.numpy(), atol=0.03)
        np.testing.assert_allclose([float(v) for v in numbers[3:]], truth.quat_xyzw().numpy(), atol=0.01)
        assert status == "accepted" and 0.5 <= float(score) <= 1
    table = capsys.readouterr().out
    assert "recall 0.05m 5deg" in table and "100.0 %" in table


def test_localize(recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a word of the truth: the copy has no poses."""
    folder = Path(shutil.copytree(recording, tmp_path / "bare"))
    (folder / "groundtruth.txt").unlink()
    file = tmp_path / "out.json"
    argv = ["localize", folder, "--map", map_path, "--split", "query", "--json", file, *QUICK]
    assert main([str(word) for word in argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [stamp_text(stamp_ns(MAP_FRAMES + i)) for i in range(QUERIES)]
    assert json.loads(file.read_text()) == {"images": QUERIES, "accepted": QUERIES, "poses": lines}


def test_localize_fails_where_no_image_is_accepted(map_path: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    folder = write_tum(tmp_path / "noise", [replace(corner_frames()[0], image_rgb=noise)])
    assert main(["localize", str(folder), "--map", str(map_path), *QUICK]) == 1


def test_map_info(map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "info.json"
    assert main(["map", "info", str(map_path), "--json", str(file)]) == 0
    map_, figures = load_map(map_path), json.loads(file.read_text())
    assert figures["landmarks"] == map_.landmark_count
    assert figures["keyframes"] == map_.keyframe_count
    assert figures["observations"] == map_.observation_count
    assert (figures["frame_id"], figures["unit"], figures["digest"]) == ("corner", "metre", map_.digest)
    assert figures["bytes"] == (map_path / FILE_NAME).stat().st_size
    assert f"{map_.landmark_count}\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["evaluate", "localize", "map info"])
def test_no_map(recording: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "no map"
    argv = [*command.split(), nothing] if command == "map info" else [command, recording, "--map", nothing]
    assert f"there is no map at {nothing}" in refusal(capsys, argv)


def test_damaged_map(recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (map_path / FILE_NAME).read_bytes()
    for damaged, said in ((data[: len(data) // 2], "truncated"), (data[:-1] + bytes([data[-1] ^ 1]), "altered")):
        (tmp_path / FILE_NAME).write_bytes(damaged)
        assert said in refusal(capsys, ["evaluate", recording, "--map", tmp_path])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist"),
        (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "an empty folder"),
        (lambda folder: (folder / "groundtruth.txt").unlink(), "has no poses"),
        (lambda folder: (folder / "camera.yaml").unlink(), "no usable calibration"),
        (lambda folder: (folder / "rgb.txt").write_text("# nothing\n"), "lists no images"),
        (lambda folder: [file.write_bytes(b"no image") for file in (folder / "rgb").iterdir()], "none of the"),
        (lambda folder: shutil.rmtree(folder / "rgb"), "none of the"),
    ],
)
def test_bad_recordings(
    spoiled: Path, map_path: Path, tmp_path: Path, spoil: Spoil, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(spoiled)
    target = tmp_path / "target"
    assert said in refusal(capsys, ["build-map", spoiled, "-o", target])
    assert not target.exists()
    assert said in refusal(capsys, ["evaluate", spoiled, "--map", map_path])


def test_a_calibration_of_another_size(spoiled: Path, map_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibration = (spoiled / "camera.yaml").read_text()
    (spoiled / "camera.yaml").write_text(calibration.replace("image_width: 320", "image_width: 322"))
    for argv in (["build-map", spoiled, "-o", map_path], ["evaluate", spoiled, "--map", map_path]):
        said = refusal(capsys, argv)
        assert "322x240" in said and "320x240" in said


def test_an_unknown_role(recording: Path, map_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["build-map", recording, "-o", map_path], ["evaluate", recording, "--map", map_path]):
        assert "training" in refusal(capsys, [*argv, "--split", "training"])


def test_bad_parameters(recording: Path, map_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nre.seeds is unknown" in refusal(capsys, ["evaluate", recording, "--map", map_path, "--set", "nre.seeds=3"])
    assert "expected 50 to" in refusal(
        capsys, ["build-map", recording, "-o", map_path, "--set", "points_per_keyframe=3"]
    )


def test_a_damaged_frame_in_the_middle_is_told_and_left_out(
    spoiled: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (spoiled / "rgb/1.png").write_bytes((spoiled / "rgb/1.png").read_bytes()[:1000])
    poses = (spoiled / "groundtruth.txt").read_text().splitlines()
    poses[3] = f"{poses[3].split()[0]} nan nan nan 0 0 0 1"
    (spoiled / "groundtruth.txt").write_text("\n".join(poses))
    (spoiled / f"rgb/{MAP_FRAMES}.png").write_bytes(b"no image")

    assert main(["build-map", str(spoiled), "-o", str(tmp_path / "map"), "--split", "map"]) == 0
    told = capsys.readouterr().err
    assert told.count("left out") == 2 and "rgb/1.png" in told and "rgb/2.png" in told and "NaN" in told
    assert set(load_map(tmp_path / "map").keyframe_stamps_ns) <= {stamp_ns(0), stamp_ns(3)}

    argv = ["evaluate", spoiled, "--map", map_path, "--split", "query", *QUICK]
    assert main([str(word) for word in argv]) == 0
    output = capsys.readouterr()
    assert f"rgb/{MAP_FRAMES}.png is left out" in output.err
    assert "queries" in output.out.splitlines()[0] and output.out.splitlines()[0].endswith(" 1")


def test_queries_without_a_true_pose_are_no_figures(
    spoiled: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poses = (spoiled / "groundtruth.txt").read_text().splitlines()
    far = stamp_text(stamp_ns(0) - 100 * STEP_NS)
    (spoiled / "groundtruth.txt").write_text(f"{far} {poses[1].partition(' ')[2]}\n")
    file = tmp_path / "out.json"
    argv = ["evaluate", spoiled, "--map", map_path, "--split", "query", "--json", file, *QUICK]
    assert main([str(word) for word in argv]) == 1
    assert "none of 2 queries has a true pose" in capsys.readouterr().err
    assert not file.exists()


def test_a_build_that_fails_keeps_the_good_map(
    spoiled: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Path(shutil.copytree(map_path, tmp_path / "good"))
    before = (target / FILE_NAME).read_bytes()
    grey = np.full((240, 320, 3), 128, np.uint8)
    frames = [replace(frame, image_rgb=grey, depth_m=None) for frame in corner_frames()]
    folder = write_tum(tmp_path / "grey", frames)
    refusal(capsys, ["build-map", folder, "-o", target])
    assert (target / FILE_NAME).read_bytes() == before
    assert [path.name for path in target.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("command", ["evaluate", "localize", "map info"])
def test_figures_that_cannot_be_written(
    recording: Path, map_path: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "no such folder" / "out.json"
    argv = (
        ["map", "info", map_path]
        if command == "map info"
        else [command, recording, "--map", map_path, "--split", "query", *QUICK]
    )
    assert main([str(word) for word in [*argv, "--json", file]]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"nre_ros {command.split()[0]}: ") and str(file) in told
