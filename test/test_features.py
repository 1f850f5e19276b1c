"""Dense descriptors: their shapes, where their cells lie, and weights that are refused."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
import ros_world
import torch
from safetensors.torch import load_file, save_file

from nre_ros.errors import ModelError
from nre_ros.features import FeatureNetwork, limit_size, load_network
from nre_ros.geometry import Camera

CHANNELS = {"coarse": (128, 8), "fine": (32, 2), "context": (256, 16)}
WEIGHTS = resources.files("nre_ros.features") / "weights" / "compact.safetensors"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return ros_world.frame(0, 0).image_rgb


@pytest.mark.parametrize(("height", "width"), [(240, 320), (241, 319), (97, 130), (33, 47), (5, 7)])
def test_every_cell_whose_centre_is_on_the_image_has_a_unit_descriptor(
    network: FeatureNetwork, image: np.ndarray, height: int, width: int
) -> None:
    features = network.extract(np.ascontiguousarray(np.pad(image, ((0, 8), (0, 8), (0, 0)))[:height, :width]))
    for name, (channels, stride) in CHANNELS.items():
        level = getattr(features, name)
        assert (level.grid.stride, level.grid.offset_px) == (stride, (stride - 1) / 2)
        rows, columns = (len(np.arange((stride - 1) / 2, size - 1 + 1e-9, stride)) for size in (height, width))
        assert level.values.shape == (channels, max(rows, 1), max(columns, 1))
        assert level.cells == max(rows, 1) * max(columns, 1)
        torch.testing.assert_close(level.values.norm(dim=0), torch.ones(level.values.shape[1:]), atol=1e-5, rtol=0)
        assert level.inverse_temperature > 1


def test_shifting_the_image_by_a_stride_shifts_the_map_by_a_cell(network: FeatureNetwork) -> None:
    """In the interior, with the image's mean and deviation unchanged: it goes round."""
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8), (384, 320))
    shift = 32
    before, after = network.extract(image), network.extract(np.roll(image, (shift, shift), (0, 1)))
    for name, (_, stride) in CHANNELS.items():
        cells, border = shift // stride, 128 // stride
        one = getattr(before, name).values[:, border : -border - cells, border : -border - cells]
        other = getattr(after, name).values[:, border + cells : -border, border + cells : -border]
        assert float((one * other).sum(0).min()) > 0.99
        assert (
            float(
                (one * getattr(after, name).values[:, border : -border - cells, border : -border - cells]).sum(0).mean()
            )
            < 0.9
        )


def test_exposure_drops_out(network: FeatureNetwork, image: np.ndarray) -> None:
    darker = (image * 0.5 + 20).astype(np.uint8)
    one, other = network.extract(image).coarse.values, network.extract(darker).coarse.values
    assert float((one * other).sum(0).median()) > 0.98


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_without_contrast_gives_finite_descriptors(network: FeatureNetwork, level: int) -> None:
    features = network.extract(np.full((64, 96, 3), level, np.uint8))
    for name in CHANNELS:
        assert bool(torch.isfinite(getattr(features, name).values).all())


def test_extraction_is_deterministic(network: FeatureNetwork, image: np.ndarray) -> None:
    assert torch.equal(network.extract(image).fine.values, network.extract(image.copy()).fine.values)


def test_sampling_at_cell_centres_reads_the_cells(network: FeatureNetwork, image: np.ndarray) -> None:
    coarse = network.extract(image).coarse
    cells = torch.tensor([[0.0, 0.0], [3.0, 7.0], [39.0, 29.0]])
    read = coarse.sample(coarse.grid.pixel_from_cell(cells))
    expected = torch.stack([coarse.values[:, int(y), int(x)] for x, y in cells])
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=0)
    between = coarse.sample(coarse.grid.pixel_from_cell(torch.tensor([[3.5, 7.0]])))[0]
    middle = torch.nn.functional.normalize(coarse.values[:, 7, 3] + coarse.values[:, 7, 4], dim=0)
    torch.testing.assert_close(between, middle, atol=1e-5, rtol=0)
    held = coarse.sample(torch.tensor([[-100.0, -100.0]]))[0]
    torch.testing.assert_close(held, coarse.values[:, 0, 0], atol=1e-5, rtol=0)


def test_limit_size_keeps_image_and_camera_together() -> None:
    """A white spot is found where the reduced camera says."""
    camera = Camera(641, 479, 400.0, 402.0, 318.0, 241.0, distortion=(0.1, -0.02, 0.001, 0.002))
    image = np.zeros((479, 641, 3), np.uint8)
    cv2.circle(image, (500, 120), 6, (255, 255, 255), -1)
    small, used = limit_size(image, camera, 320)
    assert small.shape[:2] == (used.height, used.width) == (239, 320)
    ray = camera.unproject(torch.tensor([500.0, 120.0], dtype=torch.float64))
    weight = small[..., 0].astype(float)
    rows, columns = np.mgrid[: used.height, : used.width]
    spot = [float((weight * axis).sum() / weight.sum()) for axis in (columns, rows)]
    assert used.project(ray[None])[0][0].tolist() == pytest.approx(spot, abs=0.05)


def test_limit_size_leaves_small_images_alone(image: np.ndarray) -> None:
    small, camera = limit_size(image, ros_world.CAMERA, 320)
    assert small is image and camera is ros_world.CAMERA


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def renamed(file: Path) -> None:
    state = load_file(file)
    state["surprise"] = state.pop(sorted(state)[0])
    save_file(state, file)


def reshaped(file: Path) -> None:
    state = load_file(file)
    name = sorted(state)[0]
    state[name] = torch.zeros(3, 3, 3)
    save_file(state, file)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "cannot be read: No such file"),
        (truncated, "are damaged"),
        (lambda file: file.write_bytes(b""), "are damaged"),
        (renamed, "do not belong to network 'compact'"),
        (reshaped, "do not belong to network 'compact'"),
    ],
)
def test_bad_weights_are_refused_in_one_sentence(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(WEIGHTS.read_bytes())
    spoil(file)
    with pytest.raises(ModelError, match=said) as caught:
        load_network(path=file, device="cpu")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_networks_and_absent_devices_are_refused() -> None:
    with pytest.raises(ModelError, match="'vast' is unknown; known: compact"):
        load_network("vast")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="sees no CUDA"):
            load_network(device="cuda")


def test_the_hash_names_the_weights(network: FeatureNetwork, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    state = load_file(str(WEIGHTS))
    file.write_bytes(WEIGHTS.read_bytes())
    assert load_network(path=file, device="cpu").weights_hash == network.weights_hash
    state["heads.8.bias"] += 1e-3
    save_file(state, file)
    assert load_network(path=file, device="cpu").weights_hash != network.weights_hash
