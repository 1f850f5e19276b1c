"""Degraded queries: what each kind does to grey levels, that truth stays true, and what cannot be parsed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import ros_world
import torch
from small_recordings import stamp_ns, write_tum

from nre_ros.cli.main import main
from nre_ros.errors import ConfigError
from nre_ros.evaluation.degradations import KINDS, degrade, parse_degradations
from nre_ros.evaluation.retrieval_recall import (
    RetrievalJudge,
    Retrieved,
    shares_view,
    summarise_retrieval,
)
from nre_ros.features import FeatureNetwork
from nre_ros.geometry import Camera, Pose
from nre_ros.localization import Localizer
from nre_ros.mapping import Map
from nre_ros.recordings import Frame

CAMERA = Camera(160, 120, 130.0, 131.0, 78.0, 61.0, distortion=(0.1, -0.05, 0.001, 0.002, 0.0))


def made(image: np.ndarray, *words: str, name: str = "rgb/1.png") -> np.ndarray:
    return degrade(Frame(0, image, CAMERA, name=name), parse_degradations(words)).image_rgb


def flat(level: int) -> np.ndarray:
    return np.full((120, 160, 3), level, np.uint8)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Smooth blobs of colour."""
    grain = np.random.default_rng(5).uniform(0, 255, (120, 160, 3)).astype(np.float32)
    blobs = cv2.GaussianBlur(grain, (0, 0), 4)
    return np.clip(127 + 12 * (blobs - blobs.mean()), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "words",
    [
        "hard",
        "extreme",
        "blur:9",
        "noise:0.6",
        "occlusion:0.3",
        "jpeg:20",
        "rotation:20",
        "exposure:1",
        "gamma:2",
        "shear:9",
    ],
)
def test_the_same_file_comes_out_the_same(photo: np.ndarray, words: str) -> None:
    first, again, other = made(photo, words), made(photo, words), made(photo, words, name="rgb/2.png")
    assert first.dtype == np.uint8 and first.shape == photo.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, photo)
    drawn = words.split(":")[0] in {"hard", "extreme", "blur", "noise", "occlusion"}
    assert np.array_equal(first, other) != drawn


def test_grey_levels_by_hand(photo: np.ndarray) -> None:
    assert np.array_equal(made(photo, "gamma:1", "blur:0", "occlusion:0", "exposure:0", "dark:1"), photo)
    assert set(made(flat(200), "dark:0.35").flat) == {70}
    assert set(made(flat(100), "gamma:1.8").flat) == {round(255 * (100 / 255) ** 1.8)}
    # sRGB: 100 is 0.1274 in linear light, its double 0.2548 is 138.2
    assert set(made(flat(100), "exposure:1").flat) == {138}
    assert set(made(flat(200), "exposure:3").flat) == {255}
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 0] = 200
    assert set(made(red, "grey").flat) == {round(0.299 * 200)}


def test_a_chain_rounds_once_and_in_order() -> None:
    """A gain of 0.01 leaves one grey level; it comes back because nothing in between is rounded."""
    assert set(made(flat(120), "dark:0.01", "gamma:0.1,dark:0.5").flat) == {round(127.5 * (1.2 / 255) ** 0.1)}
    assert set(made(flat(120), "dark:0.5,gamma:2").flat) != set(made(flat(120), "gamma:2,dark:0.5").flat)


def test_noise_has_the_variance_of_its_photons() -> None:
    noisy = made(flat(90), "noise:0.6").astype(float)
    assert noisy.mean() == pytest.approx(90, abs=0.3)
    # Poisson(0.6 * 90) / 0.6, the read noise of 2, and rounding
    assert noisy.var() == pytest.approx(90 / 0.6 + 4 + 1 / 12, rel=0.04)


def test_only_a_grey_image_shares_its_noise(photo: np.ndarray) -> None:
    grey = made(photo, "grey,noise:0.6")
    assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 0], grey[..., 2])
    colour = made(photo, "noise:0.6").astype(float) - photo
    middle = ((photo > 60) & (photo < 180)).all(-1)  # where nothing is clipped
    assert abs(np.corrcoef(colour[middle].T)[np.triu_indices(3, 1)]).max() < 0.1


@pytest.mark.parametrize("length_px", [9.0, 15.0])
def test_blur_is_a_centred_line_of_its_length(length_px: float) -> None:
    """Of a small square: moments of what it is smeared over, against those of a line."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[58:63, 78:83] = 250
    smeared = made(image, f"blur:{length_px}")[..., 0].astype(float)
    v, u = np.mgrid[:120, :160]
    weight = smeared / smeared.sum()
    assert (weight * u).sum() == pytest.approx(80, abs=0.1) and (weight * v).sum() == pytest.approx(60, abs=0.1)
    offset = np.stack([u - 80, v - 60]).reshape(2, -1)
    short, long = np.linalg.eigvalsh((weight.ravel() * offset) @ offset.T - np.eye(2) * (25 - 1) / 12)
    assert long == pytest.approx(length_px**2 / 12, rel=0.15)
    assert short < 1.0


def test_hard_and_extreme_are_the_issue_s_chains() -> None:
    hard = made(flat(180), "hard").astype(float)
    level = 0.35 * 255 * (180 / 255) ** 1.8
    assert hard.mean() == pytest.approx(level, abs=0.5)
    assert hard.var() == pytest.approx(level / 0.6 + 4, rel=0.06)
    assert made(flat(180), "extreme").mean() == pytest.approx(level * 0.15 / 0.35, abs=0.5)
    assert ",".join(map(str, parse_degradations(["hard"]))) == "grey,blur:9,gamma:1.8,dark:0.35,noise:0.6"
    assert ",".join(map(str, parse_degradations(["extreme"]))) == "grey,blur:15,gamma:1.8,dark:0.15,noise:0.6"


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_occlusion_hides_its_share(photo: np.ndarray, share: float) -> None:
    changed = (made(photo, f"occlusion:{share}") != photo).any(-1)
    assert changed.mean() == pytest.approx(share, abs=0.02)


def test_jpeg_keeps_colours() -> None:
    colours = np.full((120, 160, 3), (200, 90, 30), np.uint8)
    np.testing.assert_allclose(made(colours, "jpeg:60").astype(int), colours.astype(int), atol=4)


def test_shear_moves_the_last_row_against_the_first(photo: np.ndarray) -> None:
    """By its strength, evenly over the rows; the middle, whose pose counts, stays."""
    ramp = np.repeat(np.arange(160, dtype=np.uint8)[None, :, None], 120, axis=0).repeat(3, axis=2)
    sheared = made(ramp, "shear:12")[..., 0].astype(int)
    shift = sheared[:, 80] - 80
    assert shift[0] - shift[-1] == 12 and shift[59] == shift[60] == 0
    assert set(np.diff(shift)) <= {0, -1}
    assert np.array_equal(made(photo, "shear:0"), photo)


def test_a_wrong_centre_is_a_calibrations(photo: np.ndarray) -> None:
    frame = Frame(0, photo, CAMERA, Pose.identity(), None, "a.png")
    wrong = degrade(frame, parse_degradations(["wrong_centre:5"]))
    assert np.array_equal(wrong.image_rgb, photo) and wrong.map_from_cam == frame.map_from_cam
    assert wrong.camera == replace(CAMERA, cx=CAMERA.cx + 8, cy=CAMERA.cy + 6)


@pytest.mark.parametrize("degrees", [25.0, -70.0])
def test_truth_stays_true_when_the_camera_turns(photo: np.ndarray, degrees: float) -> None:
    """Points in space have the same colours in both images, each under its own pose, lens distortion included."""
    pose = Pose.exp(torch.tensor([0.3, -0.2, 0.1, 1.0, 2.0, 3.0], dtype=torch.float64))
    frame = Frame(0, photo, CAMERA, pose, np.ones((120, 160), np.float32), "a.png")
    turned = degrade(frame, parse_degradations([f"rotation:{degrees}"]))
    assert turned.map_from_cam is not None and turned.camera == CAMERA and turned.depth_m is None
    torch.testing.assert_close(turned.map_from_cam.translation, pose.translation)
    rng = np.random.default_rng(1)
    uv_px = torch.from_numpy(np.stack([rng.uniform(45, 115, 300), rng.uniform(30, 90, 300)], 1))
    xyz_map = pose.transform(CAMERA.unproject(uv_px) * torch.from_numpy(rng.uniform(1, 5, (300, 1))))
    uv_turned, visible = CAMERA.project(turned.map_from_cam.inverse().transform(xyz_map))
    inside = visible & CAMERA.contains(uv_turned, 2)
    assert inside.sum() > 200
    assert (uv_turned - uv_px).norm(dim=1).median() > 10
    difference = _sampled(turned.image_rgb, uv_turned[inside]) - _sampled(photo, uv_px[inside])
    assert np.abs(difference).mean() < 2


def _sampled(image: np.ndarray, uv_px: torch.Tensor) -> np.ndarray:
    u, v = uv_px.float().numpy().T
    return cv2.remap(image.astype(np.float32), np.ascontiguousarray(u), np.ascontiguousarray(v), cv2.INTER_LINEAR)


def test_a_wrong_focal_length_changes_the_camera_alone(photo: np.ndarray) -> None:
    frame = Frame(0, photo, CAMERA, Pose.identity(), name="a.png")
    wrong = degrade(frame, parse_degradations(["wrong_focal:-3"]))
    assert np.array_equal(wrong.image_rgb, photo) and wrong.map_from_cam is frame.map_from_cam
    assert (wrong.camera.fx, wrong.camera.fy) == pytest.approx((0.97 * CAMERA.fx, 0.97 * CAMERA.fy))
    assert replace(wrong.camera, fx=CAMERA.fx, fy=CAMERA.fy) == CAMERA


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("foggy", "'foggy' is unknown"),
        ("", "'' is unknown"),
        ("blur", "needs a strength of 0 to 200"),
        ("blur:long", "needs a strength of 0 to 200"),
        ("blur:-1", "needs a strength of 0 to 200"),
        ("dark:nan", "needs a strength of 0 to 1"),
        ("jpeg:0", "needs a strength of 1 to 100"),
        ("grey:1", "grey takes none"),
        ("hard:2", "hard is a fixed chain"),
        ("blur:3,,grey", "'' is unknown"),
    ],
)
def test_what_cannot_be_parsed_is_told(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_degradations(["grey", word])
    if "fixed chain" not in said:
        assert all(name in str(caught.value) for name in ["hard", "extreme", *KINDS])


def corner_query(index: float = 1.3) -> Frame:
    return replace(ros_world.frame(index, stamp_ns(0)), name="corner.png")


def test_keyframes_share_the_view_where_they_look_at_the_same(corner_map: Map) -> None:
    query = corner_query()
    assert query.map_from_cam is not None
    assert shares_view(corner_map, query.camera, query.map_from_cam).all()
    about_y = Pose.exp(torch.tensor([0, np.pi, 0, 0, 0, 0], dtype=torch.float64))
    assert not shares_view(corner_map, query.camera, query.map_from_cam @ about_y).any()
    for metres, expected in ((-60.0, False), (-1.0, True), (60.0, False)):
        step = Pose.exp(torch.tensor([0, 0, 0, 0, 0, metres], dtype=torch.float64))
        assert (shares_view(corner_map, query.camera, query.map_from_cam @ step) == expected).all(), metres


def test_the_judge_ranks_as_the_localizer_does(corner_map: Map, network: FeatureNetwork) -> None:
    from nre_ros.config import LocalizerConfig, with_values

    query = corner_query()
    config = with_values(LocalizerConfig(), ros_world.QUICK)
    judge, localizer = RetrievalJudge(corner_map), Localizer(corner_map, network, config)
    view = localizer.see(query.image_rgb, query.camera)
    ranking = judge.ranking(view.features, config.top_k)
    assert ranking == localizer.search(view).keyframes
    assert query.map_from_cam is not None
    judged = judge.judge(query.stamp_ns, ranking, query.camera, query.map_from_cam)
    assert judged == Retrieved(query.stamp_ns, corner_map.keyframe_count, 1)
    assert judge.judge(query.stamp_ns, (), query.camera, query.map_from_cam).rank is None


def test_recalls_are_over_queries_that_can_be_found() -> None:
    ranks = [1, 1, 4, 5, 20, None]
    retrieved = [Retrieved(i, 3, rank) for i, rank in enumerate(ranks)] + [Retrieved(9, 0, None)]
    summary = summarise_retrieval(retrieved)
    assert (summary.queries, summary.outside) == (7, 1)
    assert summary.recall == {"1": pytest.approx(2 / 6), "5": pytest.approx(4 / 6), "20": pytest.approx(5 / 6)}
    assert summarise_retrieval(retrieved[-1:]).recall == {}
    figures = json.loads(json.dumps(summary.as_dict(retrieved), allow_nan=False))
    assert figures["ranks"]["2"] == 4 and figures["ranks"]["5"] is None


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [ros_world.frame(index, stamp_ns(i)) for i, index in enumerate((0.0, 2.5, 5.0, 1.3, 3.1))]
    return write_tum(tmp_path_factory.mktemp("recordings") / "corner", frames, queries=2)


QUICK = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]


def test_evaluate_degrades_queries(
    recording: Path, corner_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    argv = ["evaluate", str(recording), "--map", str(corner_path), "--split", "query", "--json", str(file), *QUICK]
    assert main([*argv, "--every", "2", "--degrade", "blur:3,dark:0.5", "--degrade", "rotation:10"]) == 0
    table, figures = capsys.readouterr().out, json.loads(file.read_text())
    assert figures["degrade"] == "blur:3,dark:0.5,rotation:10"
    assert (figures["queries"], figures["recall"]["0.05m_5deg"]) == (1, 1.0), "the truth turned with the image"
    assert figures["retrieval"]["recall"] == {"1": 1.0, "5": 1.0, "20": 1.0}
    assert "blur:3,dark:0.5,rotation:10" in table and "retrieval recall@20" in table


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--degrade", "foggy"], "'foggy' is unknown"), (["--every", "0"], "--every is 0, expected 1")],
)
def test_evaluate_refuses(
    recording: Path, corner_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(recording), "--map", str(corner_path), *words]) == 1
    output = capsys.readouterr()
    assert said in output.err and output.err.count("\n") == 1 and output.out == ""


def test_build_map_of_every_second_frame(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["build-map", str(recording), "-o", str(tmp_path / "map"), "--set", "keyframe_motion=0", "--every", "2"]
    assert main([*argv, "--split", "map"]) == 0
    assert "2 keyframes of 2 frames" in capsys.readouterr().out
