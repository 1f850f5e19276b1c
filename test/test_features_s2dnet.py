"""S2DNet's network: layers and keys of the official checkpoint, read as the original does, cells where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_world
import torch
from paper_networks import CPU, randomised, symmetric
from safetensors.torch import save_file
from torch import Tensor, nn

from nre_ros.errors import ModelError
from nre_ros.features import FeatureNetwork, load_network
from nre_ros.features.raw import imagenet_batch
from nre_ros.features.s2dnet import S2DNet, S2DNetFeatures

LAYERS = ["conv1_2", "conv3_3", "conv5_3"]
CHANNELS = [64, 256, 512]
VGG16 = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
"""Outputs and inputs of VGG-16's 3 x 3 convolutions, by their index in torchvision's ``features``."""


def save_official(path: Path, net: S2DNet, layers: Any = None) -> Path:
    """As the official weights are: before torch 1.6, files were no zip archives."""
    content = {"state_dict": net.state_dict(), "hypercolumn_layers": LAYERS if layers is None else layers}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def net() -> S2DNet:
    return randomised(S2DNet())


@pytest.fixture(scope="module")
def file(net: S2DNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_official(tmp_path_factory.mktemp("s2dnet") / "s2dnet_weights.pth", net)


@pytest.fixture(scope="module")
def loaded(file: Path) -> FeatureNetwork:
    return load_network("s2dnet", device="cpu", path=file)


def test_keys_shapes_and_size_are_the_documented_ones(net: S2DNet) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for index, (outputs, inputs) in VGG16.items():
        expected |= {f"encoder.{index}.weight": (outputs, inputs, 3, 3), f"encoder.{index}.bias": (outputs,)}
    for i, channels in enumerate(CHANNELS):
        key = f"adaptation_layers.adap_layer_{i}"
        expected |= {f"{key}.0.weight": (64, channels, 1, 1), f"{key}.0.bias": (64,)}
        expected |= {f"{key}.2.weight": (128, 64, 5, 5), f"{key}.2.bias": (128,), f"{key}.3.num_batches_tracked": ()}
        expected |= {f"{key}.3.{name}": (128,) for name in ("weight", "bias", "running_mean", "running_var")}
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == expected
    assert sum(p.numel() for p in net.parameters()) == 15_383_680


@torch.inference_mode()
def test_layers_are_read_as_the_original_reads_them(net: S2DNet) -> None:
    """It keeps the outputs of three convolutions while VGG-16 goes on, rectifying two of them in place."""
    image = imagenet_batch(ros_world.frame(0, 0).image_rgb[:64, :80].copy(), CPU)
    kept, x = [], image
    for index, module in enumerate(net.encoder):
        x = module(x)
        if index in (2, 14, 28):
            kept.append(x)
    assert [bool((values < 0).any()) for values in kept] == [False, False, True]
    expected = [net.adaptation_layers[f"adap_layer_{i}"](values) for i, values in enumerate(kept)]
    found = net(image, range(3))
    assert [tuple(found[i].shape) for i in range(3)] == [(1, 128, 64, 80), (1, 128, 16, 20), (1, 128, 4, 5)]
    for i in range(3):
        torch.testing.assert_close(found[i], expected[i])


@torch.inference_mode()
def test_the_fine_hypercolumn_sums_correlations(net: S2DNet, loaded: FeatureNetwork) -> None:
    """Its dot products are those of both layers, the deeper one interpolated between its cells."""
    image = ros_world.frame(0, 0).image_rgb[:96, :128].copy()
    seen = loaded.extract(image)
    values = net(imagenet_batch(image, CPU), {1, 2})
    torch.testing.assert_close(seen.coarse.values, values[2][0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen.fine.values[:128], values[1][0], rtol=1e-3, atol=1e-3)
    centres_px = seen.fine.grid.pixel_from_cell(torch.tensor([[12.0, 10.0], [17.0, 8.0]]))
    below = seen.fine.sample(centres_px)[:, 128:]
    torch.testing.assert_close(below, seen.coarse.sample(centres_px), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (97, 130), (111, 121), (17, 9), (5, 3)])
def test_every_cell_whose_centre_is_on_the_image_has_a_descriptor(
    loaded: FeatureNetwork, height: int, width: int
) -> None:
    seen = loaded.extract(ros_world.frame(0, 0).image_rgb[:height, :width].copy())
    for level, channels, stride in ((seen.coarse, 128, 16), (seen.fine, 256, 4), (seen.context, 128, 16)):
        rows, columns = (max(len(np.arange((stride - 1) / 2, size - 0.5, stride)), 1) for size in (height, width))
        assert level.values.shape == (channels, rows, columns)
        assert (level.grid.stride, level.grid.offset_px) == (stride, (stride - 1) / 2)
    assert (seen.coarse.unit, seen.fine.unit, seen.context.unit) == (False, False, True)
    assert seen.coarse.inverse_temperature == seen.fine.inverse_temperature == 1


@torch.inference_mode()
def test_a_cell_is_centred_on_its_pixels() -> None:
    """Two pixels about the centre of coarse cell 4 spread evenly around it, in every layer; moved by one, they do not.

    The image's middle is that centre, so that its borders do not tip the balance.
    """
    net = symmetric(S2DNet())
    middle = 4 * 16 + 7.5
    image = torch.zeros(1, 3, 144, 144)
    image[..., 71:73, 71:73] = 1
    assert (image.shape[-1] - 1) / 2 == middle
    for moved in (0, 1):
        found = net(image.roll(moved, -1), range(3))
        for values in found.values():
            skew = float((values - values.flip(-1)).abs().max() / values.abs().max())
            assert skew > 0.01 if moved else skew < 1e-3
    peak = int(net(image, {2})[2][0].sum(0).argmax())
    assert (peak // 9, peak % 9) == (4, 4)
    features = S2DNetFeatures(net, "0" * 16, CPU)
    grid = features.extract(np.zeros((144, 144, 3), np.uint8)).coarse.grid
    assert grid.pixel_from_cell(torch.tensor([4.0])).tolist() == [middle]


def test_other_hypercolumns_are_honoured(tmp_path: Path) -> None:
    layers = ["conv2_2", "pool3"]
    file = save_official(tmp_path / "weights.pth", randomised(S2DNet(layers)), layers)
    seen = load_network("s2dnet", device="cpu", path=file).extract(np.zeros((64, 96, 3), np.uint8))
    assert (seen.fine.grid.stride, seen.coarse.grid.stride) == (2, 8)
    assert (seen.fine.values.shape, seen.coarse.values.shape) == ((256, 32, 48), (128, 8, 12))


def test_safetensors_serve_too(net: S2DNet, loaded: FeatureNetwork, tmp_path: Path) -> None:
    """Without metadata, the usual layers."""
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    image = ros_world.frame(0, 0).image_rgb[:48, :64].copy()
    other = load_network("s2dnet", device="cpu", path=[tmp_path / "weights.safetensors"])
    assert torch.equal(other.extract(image).fine.values, loaded.extract(image).fine.values)
    assert other.name == loaded.name == "s2dnet" and other.weights_hash != loaded.weights_hash


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (["conv1_2", "conv3_3"], r"do not belong to network 's2dnet': adaptation_layers\.adap_layer_2\S+ is not of it"),
        (["conv1_2", "conv2_2", "conv5_3"], "adap_layer_1.0.weight has shape"),
        (["conv1_2", "conv9_9", "conv5_3"], "are not layers of VGG-16"),
        (["conv5_3", "conv3_3", "conv1_2"], "are not layers of VGG-16, in its order"),
        (["conv1_2", "relu1_2", "conv5_3"], "are not layers of VGG-16, in its order"),
        ([], "are not layers of VGG-16"),
        (3, "of no known network"),
    ],
)
def test_weights_of_other_layers_are_refused(tmp_path: Path, net: S2DNet, layers: Any, said: str) -> None:
    file = save_official(tmp_path / "weights.pth", net, layers)
    with pytest.raises(ModelError, match=said) as caught:
        load_network("s2dnet", device="cpu", path=file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state: dict[str, Tensor] = nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="do not belong to network 's2dnet'"):
        load_network("s2dnet", device="cpu", path=tmp_path / "weights.pth")


@pytest.mark.parametrize("count", [0, 2])
def test_one_file_is_needed(file: Path, count: int) -> None:
    with pytest.raises(ModelError, match=f"needs one file of weights, got {count}; none comes with this package"):
        load_network("s2dnet", device="cpu", path=count * [file])
