"""Pictures of descriptors and loss maps: their sizes, shared colours, marks where they belong, and bad input."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import ros_world
import torch

from nre_ros.cli.main import main
from nre_ros.evaluation.feature_pictures import common_colours, feature_sheet
from nre_ros.evaluation.loss_pictures import BEST, AskedPoint, loss_sheet, point_losses, spread_corners
from nre_ros.evaluation.sheets import CAPTION_PX, GAP_PX, PAPER, cells_as_pixels, sheet
from nre_ros.features import DenseFeatures, FeatureNetwork
from nre_ros.recordings.compressed import encode_png

NEAR_PX = 12.0
"""A cell of the coarse map and a half."""


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [ros_world.frame(index, 0).image_rgb for index in (0, 1)]


@pytest.fixture(scope="module")
def features(network: FeatureNetwork, images: list[np.ndarray]) -> list[DenseFeatures]:
    return [network.extract(image) for image in images]


@pytest.fixture(scope="module")
def points() -> list[AskedPoint]:
    """Places of the first wall that both views see."""
    xyz_map = torch.tensor([[0.5, 0.0, 0.2], [0.3, 0.0, -0.3], [0.8, 0.0, 0.0]], dtype=torch.float64)
    uv = [ros_world.CAMERA.project(ros_world.pose(i).inverse().transform(xyz_map))[0].numpy() for i in (0.0, 1.0)]
    return [AskedPoint(a, b) for a, b in zip(*uv, strict=True)]


@pytest.fixture(scope="module")
def files(images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    written = [folder / f"{i}.png" for i in range(2)]
    for path, image in zip(written, images, strict=True):
        path.write_bytes(encode_png(image))
    return written


def test_a_sheet_holds_its_tiles_as_they_are() -> None:
    tiles = [[("a", np.full((10, 30, 3), 1, np.uint8)), ("b", np.full((20, 5, 3), 2, np.uint8))]]
    tiles.append([("c", np.full((8, 12, 3), 3, np.uint8))])
    drawn = sheet(tiles)
    assert drawn.shape == (20 + 8 + 2 * CAPTION_PX + 3 * GAP_PX, 30 + 5 + 3 * GAP_PX, 3)
    counts = [(drawn == value).all(-1).sum() for value in (1, 2, 3)]
    assert counts == [10 * 30, 20 * 5, 8 * 12]
    assert (drawn[0] == PAPER).all() and (drawn[:, -1] == PAPER).all()


def test_cells_cover_the_pixels_that_they_stand_for() -> None:
    cells = np.arange(6).reshape(2, 3)
    pixels = cells_as_pixels(cells, 8, 17, 24)
    assert pixels.shape == (17, 24)
    assert (pixels[:8, 8:16] == 1).all() and (pixels[16, 16:] == 5).all()


def test_features_have_a_row_for_each_stride(images: list[np.ndarray], features: list[DenseFeatures]) -> None:
    height, width = images[0].shape[:2]
    drawn = feature_sheet(images, features)
    assert drawn.shape == (4 * (height + CAPTION_PX + GAP_PX) + GAP_PX, 2 * (width + GAP_PX) + GAP_PX, 3)
    top = GAP_PX + CAPTION_PX
    np.testing.assert_array_equal(drawn[top : top + height, GAP_PX : GAP_PX + width], images[0])


def test_the_same_descriptor_has_the_same_colour_in_both_images(
    images: list[np.ndarray], features: list[DenseFeatures]
) -> None:
    first, again, other = common_colours([features[0].coarse, features[0].coarse, features[1].coarse])
    np.testing.assert_array_equal(first, again)
    assert first.shape == (*features[0].coarse.values.shape[1:], 3)
    assert (first.reshape(-1, 3).std(0) > 20).all()  # all three colours are used
    assert (other != first).any()


def test_true_places_have_low_losses_and_are_marked(
    images: list[np.ndarray], features: list[DenseFeatures], points: list[AskedPoint]
) -> None:
    for found, point in zip(point_losses(features[0].coarse, features[1].coarse, points), points, strict=True):
        assert point.true_uv_px is not None and found.true_loss is not None
        assert np.linalg.norm(found.best_uv_px - point.true_uv_px) < NEAR_PX
        assert found.loss.min() <= found.true_loss < 0.6 < np.median(found.loss)
    shown = loss_sheet(images, features, points)
    height, width = images[0].shape[:2]
    assert shown.picture.shape[:2] == (3 * (height + CAPTION_PX + GAP_PX) + GAP_PX, 4 * (width + GAP_PX) + GAP_PX)
    assert len(shown.lines) == 6 and all("px from the true place" in line for line in shown.lines)
    left = GAP_PX + 2 * (width + GAP_PX)
    coarse = shown.picture[GAP_PX + CAPTION_PX : GAP_PX + CAPTION_PX + height, left : left + width]
    red = np.argwhere(np.abs(coarse.astype(int) - BEST).sum(-1) < 60).mean(0)[::-1]
    assert points[0].true_uv_px is not None and np.linalg.norm(red - points[0].true_uv_px) < 2 * NEAR_PX


def test_corners_lie_apart(images: list[np.ndarray]) -> None:
    uv = np.array([point.uv_px for point in spread_corners(images[0])])
    apart = np.linalg.norm(uv[:, None] - uv[None], axis=-1)[np.triu_indices(len(uv), 1)]
    assert len(uv) >= 3 and apart.min() >= 59
    assert not spread_corners(np.full((64, 64, 3), 128, np.uint8))


def test_command_writes_both_pictures(
    files: list[Path], points: list[AskedPoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = points[0]
    assert place.true_uv_px is not None
    point = ",".join(f"{v:.1f}" for v in (*place.uv_px, *place.true_uv_px))
    argv = ["features", *map(str, files), "-o", str(tmp_path / "out"), "--point", point, "--set", "device=cpu"]
    assert main([*argv, "--degrade", "noise:2", "--set", "max_image_side=240"]) == 0
    said = capsys.readouterr().out.splitlines()
    off_px = float(said[1].split(", ")[2].split(" px")[0])
    assert said[1].startswith("point 1, coarse") and off_px < NEAR_PX
    sizes = [cv2.imread(str(tmp_path / "out" / name)).shape[:2] for name in ("features.png", "loss_maps.png")]
    # 320 x 240 pixels became 240 x 180
    side, down = 240 + GAP_PX, 180 + CAPTION_PX + GAP_PX
    assert sizes == [(4 * down + GAP_PX, 2 * side + GAP_PX), (down + GAP_PX, 4 * side + GAP_PX)]


def test_one_image_has_no_loss_maps(files: list[Path], tmp_path: Path) -> None:
    assert main(["features", str(files[0]), "-o", str(tmp_path), "--set", "device=cpu"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["features.png"]


def test_bad_input_is_one_sentence(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut, flat = tmp_path / "cut.png", tmp_path / "flat.png"
    cut.write_bytes(files[0].read_bytes()[:3000])
    flat.write_bytes(encode_png(np.full((96, 128, 3), 99, np.uint8)))
    for argv, sentence in (
        ([tmp_path / "none.png"], "No such file"),
        ([tmp_path], "cannot be read"),
        ([cut], "cut.png: "),
        ([files[0], "--point", "3,4"], "belong to two images"),
        ([*files, "--point", "3"], "expected U,V"),
        ([*files, "--point", "3,nan"], "expected U,V"),
        ([*files, "--point", "3,400"], "outside its image of 320x240"),
        ([*files, "--degrade", "rotation:5"], "needs a calibration"),
        ([*files, "--degrade", "fog"], "is unknown"),
        ([*files, "--network", "inception"], "inception"),
        ([flat, files[0]], "no corner to ask about"),
        ([files[0], "-o", cut / "out"], "cannot hold pictures"),
    ):
        assert main(["features", "-o", str(tmp_path / "out"), *map(str, argv)]) == 1, argv
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
