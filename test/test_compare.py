"""``nre_ros compare`` on a small rendered map: every estimator answers, the figures hold, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_world
import torch
from paper_networks import randomised
from small_recordings import stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.config import LocalizerConfig, with_values
from nre_ros.errors import ConfigError, RecordingError
from nre_ros.evaluation import feature_metric
from nre_ros.evaluation.estimators import NAMES, Equipment, estimators, names_of
from nre_ros.evaluation.feature_metric import DAMPINGS, fitted_metric
from nre_ros.evaluation.keyframe_images import keyframe_frames
from nre_ros.evaluation.questions import ask
from nre_ros.evaluation.sift import SiftMap, enhanced
from nre_ros.evaluation.sweeps import conditions, parse_sweep, thinned
from nre_ros.features import FeatureNetwork
from nre_ros.features.pixloc import PixLocNet
from nre_ros.localization import Localizer
from nre_ros.mapping import Map, load_map
from nre_ros.recordings import open_recording

MAP_FRAMES, QUERIES = 5, 2
QUICK = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]
SLOW = ("usac_default", "usac_fast", "usac_accurate")
RUNNING = [name for name in NAMES if not name.startswith(SLOW)]
if not importlib.util.find_spec("poselib"):
    RUNNING = [name for name in RUNNING if not name.startswith("poselib")]
"""Of OpenCV's one is enough: the others differ by a number."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of a mapping run, then of two places between."""
    indices = [*np.linspace(0, 5, MAP_FRAMES), 1.3, 3.1]
    frames = [ros_world.frame(float(index), stamp_ns(i), noise_seed=i) for i, index in enumerate(indices)]
    return write_tum(tmp_path_factory.mktemp("recordings") / "corner", frames, queries=QUERIES)


@pytest.fixture(scope="module")
def map_path(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "corner"
    assert main(["build-map", str(recording), "-o", str(path), "--split", "map"]) == 0
    return path


@pytest.fixture(scope="module")
def corner(map_path: Path, network: FeatureNetwork) -> Map:
    return load_map(map_path, network)


@pytest.fixture(scope="module")
def figures(recording: Path, map_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of everybody, PixLoc with random weights."""
    folder = tmp_path_factory.mktemp("figures")
    torch.save({"model": randomised(PixLocNet()).state_dict()}, folder / "pixloc.tar")
    argv = ["--pixloc-weights", folder / "pixloc.tar", "--estimators", ",".join(RUNNING)]
    return compared(recording, map_path, argv, folder / "all.json")["as recorded"]


def compared(recording: Path, map_path: Path, argv: Sequence[object], json_path: Path) -> dict[str, Any]:
    common = ["compare", recording, "--map", map_path, "--split", "query", "--json", json_path, *QUICK]
    assert main([str(word) for word in [*common, *argv]]) == 0
    return json.loads(json_path.read_text())["conditions"]


def test_everybody_is_asked(figures: dict[str, Any]) -> None:
    assert list(figures) == RUNNING
    for row in figures.values():
        assert row["queries"] == QUERIES
        assert row["answered"] == len(row["poses"]) <= QUERIES
        assert row["median_ms"] > 0


def test_an_easy_place_is_found_by_all_that_search_it(figures: dict[str, Any]) -> None:
    """PixLoc's random features are no search; alignment from the keyframe may be out of reach."""
    for name in set(RUNNING) - {"pixloc_keyframe", "pixloc_coarse", "align_keyframe", "sift_enhanced"}:
        assert figures[name]["recall_of_depth"]["5%_5deg"] == 1.0, name
    assert figures["align_keyframe"]["answered"] == QUERIES


def test_thresholds_are_told(figures: dict[str, Any]) -> None:
    assert figures["nre"]["setting"] is None
    assert figures["usac_magsac_fine"]["setting"].endswith(" cells")
    assert figures["sift"]["setting"].endswith(" px")


def test_nre_is_what_evaluate_gives_before_acceptance(
    recording: Path, map_path: Path, tmp_path: Path, figures: dict[str, Any]
) -> None:
    argv = ["evaluate", recording, "--map", map_path, "--split", "query", "--json", tmp_path / "evaluated.json", *QUICK]
    assert main([str(word) for word in argv]) == 0
    evaluated = json.loads((tmp_path / "evaluated.json").read_text())
    assert figures["nre"]["poses"] == [" ".join(line.split()[:8]) for line in evaluated["poses"]]
    assert figures["nre"]["median_rotation_deg"] != figures["msac_coarse"]["median_rotation_deg"]


def test_everybody_has_the_landmarks_in_view_for_a_second_pass(
    corner: Map, recording: Path, network: FeatureNetwork
) -> None:
    """The localizer's own: found with few of them, and refined on these."""
    config = with_values(LocalizerConfig(), ros_world.QUICK)
    frame = next(open_recording(str(recording)).frames("query"))
    (question,) = ask(Localizer(corner, network, config), [frame], config)
    shown = question.in_view(question.truth)
    assert shown is not None
    uv_px, _ = question.view.used.project(question.truth.transform(shown.candidates.xyz_map))
    assert len(question.search.landmarks) < len(shown.landmarks) <= config.nre.max_points
    assert float(question.view.used.contains(uv_px).double().mean()) > 0.9
    for name in {"nre", "re", "fpr", "usac_magsac_fine", "usac_magsac_coarse"}:
        found = estimators([name], question.localizer, config.nre, Equipment())[name].solve(question, 1.0)
        assert found is not None
        again = question.in_view(found)
        assert again is not None and len(again.landmarks) > len(question.search.landmarks)


def test_dampings_are_fitted_where_keyframes_stand_apart(
    corner: Map, recording: Path, network: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = keyframe_frames(corner, open_recording(str(recording)))
    assert fitted_metric(corner, frames, network).references.dampings == (None,) * 3
    monkeypatch.setattr(feature_metric, "APART", 0.01)
    for damping in fitted_metric(corner, frames, network).references.dampings:
        assert damping is not None and set(damping.tolist()) <= set(DAMPINGS)


def test_twice_the_same(recording: Path, map_path: Path, tmp_path: Path, figures: dict[str, Any]) -> None:
    names = ["nre", "fpr", "usac_magsac_coarse", "align_coarse", "sift"]
    argv = ["--estimators", ",".join(names)]
    again = compared(recording, map_path, argv, tmp_path / "again.json")["as recorded"]
    assert {name: row["poses"] for name, row in again.items()} == {name: figures[name]["poses"] for name in names}


def test_a_sweep_is_a_line_a_strength(
    recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--estimators", "msac_coarse,align_coarse,sift", "--sweep", "dark:0.5,0.02", "--sweep", "keyframes:2"]
    capsys.readouterr()
    found = compared(recording, map_path, argv, tmp_path / "sweep.json")
    assert list(found) == ["as recorded", "dark:0.5", "dark:0.02", "keyframes:2"]
    text = capsys.readouterr().out
    assert all(f"\n| {name} | " in text for name in found)
    assert found["dark:0.02"]["sift"]["answered"] <= found["as recorded"]["sift"]["answered"]


def refusal(capsys: pytest.CaptureFixture[str], argv: Sequence[object]) -> str:
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    return output.err


def test_bad_input_is_refused(
    recording: Path, map_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["compare", recording, "--map", map_path, "--split", "query"]
    assert "known ones: nre, msac" in refusal(capsys, [*common, "--estimators", "nre,epnp"])
    assert "--pixloc-weights FILE" in refusal(capsys, [*common, "--estimators", "pixloc_coarse"])
    assert "names no strengths" in refusal(capsys, [*common, "--sweep", "dark"])
    assert "every fourth keyframe" in refusal(capsys, [*common, "--sweep", "keyframes:0.5"])
    assert "is unknown" in refusal(capsys, [*common, "--sweep", "fog:1"])
    other = Path(shutil.copytree(recording, tmp_path / "later"))
    for name in ("rgb.txt", "groundtruth.txt", "split.txt", "depth.txt"):
        file = other / name
        if file.exists():
            file.write_text(file.read_text().replace("1305031", "1305032"))
    argv = ["compare", other, "--map", map_path, "--split", "query", "--estimators", "sift"]
    assert "0 of the map's" in refusal(capsys, argv)
    assert main([str(word) for word in [*argv, "--map-recording", recording]]) == 0


def test_names_are_read_once_each() -> None:
    assert names_of(["re, nre", "nre"]) == ("re", "nre")
    with pytest.raises(ConfigError, match="'PnP' is unknown"):
        names_of(["PnP"])


def test_conditions_follow_the_query_as_it_is() -> None:
    base, dark, thin = conditions(["grey"], ["dark:0.5", "keyframes:3"])
    assert (base.name, dark.name, thin.name) == ("grey", "dark:0.5", "keyframes:3")
    assert [step.name for step in dark.chain] == ["grey", "dark"]
    assert (dark.every, thin.every, [step.name for step in thin.chain]) == (1, 3, ["grey"])
    assert [c.name for c in parse_sweep("blur:3, 9")] == ["blur:3", "blur:9"]


def test_a_thinned_map_has_every_nth_keyframe(corner: Map) -> None:
    assert thinned(corner, 1) is corner
    half = thinned(corner, 2)
    assert half.keyframe_stamps_ns.tolist() == corner.keyframe_stamps_ns[::2].tolist()
    assert half.landmark_count < corner.landmark_count


def test_sift_landmarks_lie_where_their_keypoints_say(corner: Map, recording: Path) -> None:
    frames = keyframe_frames(corner, open_recording(str(recording)))
    assert [frame.stamp_ns for frame in frames] == corner.keyframe_stamps_ns.tolist()
    sift = SiftMap(frames)
    held_out = ros_world.frame(1.3, 0, noise_seed=9)
    matches = sift.matches(sift.keypoints(held_out.image_rgb), held_out.camera, corner.keyframe_stamps_ns.tolist())
    assert held_out.map_from_cam is not None
    cam_from_map = held_out.map_from_cam.inverse()
    uv_px, _ = matches.camera.project(cam_from_map.transform(torch.from_numpy(matches.xyz_map)))
    off = (uv_px - torch.from_numpy(matches.uv_px)).norm(dim=-1)
    assert len(off) > 30
    assert float(off.median()) < 1.5
    blank = np.full((240, 320, 3), 128, np.uint8)
    assert len(sift.matches(sift.keypoints(blank), held_out.camera, corner.keyframe_stamps_ns.tolist()).xyz_map) == 0


def test_a_recording_without_the_keyframes_says_so(corner: Map, recording: Path, tmp_path: Path) -> None:
    frames = [ros_world.frame(0.0, stamp_ns(90))]
    strange = open_recording(str(write_tum(tmp_path / "strange", frames, queries=0)))
    with pytest.raises(RecordingError, match="--map-recording"):
        keyframe_frames(corner, strange)


def test_enhanced_stretches_the_dark() -> None:
    dark = (ros_world.frame(1.0, 0).image_rgb * 0.1).astype(np.uint8)
    better = enhanced(dark)
    assert better.shape == dark.shape and better.dtype == np.uint8
    assert better.std() > 2 * dark.std()
