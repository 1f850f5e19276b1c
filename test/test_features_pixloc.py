"""PixLoc's network: names and shapes of the official checkpoints, cells where they belong, dampings in our order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from paper_networks import CPU, randomised, symmetric

from nre_ros.errors import ModelError
from nre_ros.features.pixloc import DESCRIPTOR_SIZES, STRIDES, PixLocFeatures, PixLocNet, load_pixloc

VGG19 = {
    "0.0": (64, 3), "0.2": (64, 64), "1.1": (128, 64), "1.3": (128, 128), "2.1": (256, 128), "2.3": (256, 256),
    "2.5": (256, 256), "2.7": (256, 256), "3.1": (512, 256), "3.3": (512, 512), "3.5": (512, 512), "3.7": (512, 512),
    "4.1": (512, 512), "4.3": (512, 512), "4.5": (512, 512), "4.7": (512, 512),
}  # fmt: skip
"""Block and layer of the encoder: a block begins with its pooling."""
DECODER = {0: (64, 512 + 512), 1: (64, 64 + 256), 2: (64, 64 + 128), 3: (32, 64 + 64)}
HEADS = {0: (32, 32), 1: (128, 64), 2: (128, 512)}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def net() -> PixLocNet:
    net = randomised(PixLocNet())
    for i, optimizer in enumerate(net.optimizer):
        optimizer.dampingnet.const.data = torch.arange(6.0) - 2 * i
    return net


def test_keys_and_shapes_are_the_checkpoints(net: PixLocNet) -> None:
    expected = {}
    for place, (outputs, inputs) in VGG19.items():
        expected[f"extractor.encoder.{place}.weight"] = (outputs, inputs, 3, 3)
        expected[f"extractor.encoder.{place}.bias"] = (outputs,)
    for i, (outputs, inputs) in DECODER.items():
        expected[f"extractor.decoder.{i}.layers.0.weight"] = (outputs, inputs, 3, 3)
        expected |= {f"extractor.decoder.{i}.layers.1.{n}": (outputs,) if n != NORM[-1] else () for n in NORM}
    for i, (outputs, inputs) in HEADS.items():
        for head, channels in (("adaptation", outputs), ("uncertainty", 1)):
            expected[f"extractor.{head}.{i}.0.weight"] = (channels, inputs, 1, 1)
            expected[f"extractor.{head}.{i}.0.bias"] = (channels,)
        expected[f"optimizer.{i}.dampingnet.const"] = (6,)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == expected


def test_a_checkpoint_comes_back(net: PixLocNet, tmp_path: Path) -> None:
    """As the official ones are laid out: the state under ``model``, the rest of the training beside it."""
    path = tmp_path / "checkpoint_best.tar"
    torch.save({"model": net.state_dict(), "conf": {"model": {"name": "two_view_refiner"}}, "epoch": 7}, path)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    loaded, made = load_pixloc(path, CPU), PixLocFeatures(net, CPU)
    for a, b in zip(loaded.levels(image), made.levels(image), strict=True):
        assert torch.equal(a.features.values, b.features.values)
        assert torch.equal(a.confidence, b.confidence)


def test_levels_are_unit_coarsest_first_with_confidences(net: PixLocNet) -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    levels = PixLocFeatures(net, CPU).levels(image)
    assert [level.features.grid.stride for level in levels] == list(STRIDES[::-1])
    for level, stride, size in zip(levels, STRIDES[::-1], DESCRIPTOR_SIZES[::-1], strict=True):
        _, height, width = level.features.values.shape
        assert level.features.values.shape[0] == size
        # every cell whose centre lies on the image
        assert (height, width) == tuple(int((n - 1 - (stride - 1) / 2) // stride) + 1 for n in (50, 70))
        torch.testing.assert_close(level.features.values.norm(dim=0), torch.ones(height, width))
        assert level.confidence.shape == (height, width)
        assert 0 < float(level.confidence.min()) < float(level.confidence.max()) < 1


def test_cells_lie_where_the_grid_says() -> None:
    """Even kernels spread an impulse evenly: its centre of mass stays at its pixel, at every stride."""
    net = symmetric(PixLocNet())
    features = PixLocFeatures(net, CPU)
    image = np.zeros((256, 256, 3), np.uint8)
    image[120:136, 120:136] = 255  # centred on 127.5, as is a block of every stride's cells
    background = np.zeros_like(image)
    with torch.inference_mode():
        for stride, (lit, _), (dark, _) in zip(
            STRIDES, *(net.extractor(_batch(one, features)) for one in (image, background)), strict=True
        ):
            weight = (lit - dark)[0].abs().sum(0).double()
            centre = (weight.sum(0) * torch.arange(len(weight))).sum() / weight.sum()
            assert float(centre) * stride + (stride - 1) / 2 == pytest.approx(127.5, abs=0.6)


def _batch(image: np.ndarray, features: PixLocFeatures) -> torch.Tensor:
    from nre_ros.features.raw import imagenet_batch

    return imagenet_batch(image, features.device)


def test_dampings_are_in_our_order(net: PixLocNet) -> None:
    """The checkpoints have translation first, finest stride first."""
    coarsest, finest = PixLocFeatures(net, CPU).dampings[0], PixLocFeatures(net, CPU).dampings[-1]
    const = torch.arange(6.0).double()
    torch.testing.assert_close(finest, 10 ** (-6 + 11 * const[[3, 4, 5, 0, 1, 2]].sigmoid()))
    torch.testing.assert_close(coarsest, 10 ** (-6 + 11 * (const - 4)[[3, 4, 5, 0, 1, 2]].sigmoid()))


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.tar"
    torch.save({"model": {"extractor.encoder.0.0.weight": torch.zeros(64, 3, 3, 3)}}, path)
    with pytest.raises(ModelError, match=re.escape("do not belong to network 'pixloc'")):
        load_pixloc(path, CPU)
