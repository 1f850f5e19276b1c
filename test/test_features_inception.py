"""The NRE paper's two networks: layer by layer as documented, cells where they belong, files that are refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ros_world
import torch
from paper_networks import CPU, SMALL_FINE, randomised, save_lightning, small_inception, symmetric
from safetensors.torch import save_file
from small_recordings import stamp_ns, write_tum
from torch import nn

from nre_ros.cli.main import main
from nre_ros.errors import ModelError
from nre_ros.features import FeatureNetwork, load_network
from nre_ros.features.checkpoints import read_checkpoint
from nre_ros.features.inception import InceptionNet
from nre_ros.features.inception_blocks import InceptionA
from nre_ros.features.raw import imagenet_batch
from nre_ros.mapping import load_map

COARSE = {"level": "coarse", "extraction_layer": "Mixed_7a", "image": {"resize": 50}, "minibatch_size": 1000}
FINE = {"level": "fine", "extraction_layer": "Mixed_5d", "image": {"resize": 50}, "minibatch_size": 1000}

Kernels = dict[str, tuple[int, ...]]


def kernels_a(inputs: int, pooled: int) -> Kernels:
    """Output channels, input channels, rows, columns of every convolution."""
    return {
        "branch1x1": (64, inputs, 1, 1),
        "branch5x5_1": (48, inputs, 1, 1),
        "branch5x5_2": (64, 48, 5, 5),
        "branch3x3dbl_1": (64, inputs, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3),
        "branch3x3dbl_3": (96, 96, 3, 3),
        "branch_pool": (pooled, inputs, 1, 1),
    }


def kernels_c(width: int) -> Kernels:
    return {
        "branch1x1": (192, 768, 1, 1),
        "branch7x7_1": (width, 768, 1, 1),
        "branch7x7_2": (width, width, 1, 7),
        "branch7x7_3": (192, width, 7, 1),
        "branch7x7dbl_1": (width, 768, 1, 1),
        "branch7x7dbl_2": (width, width, 7, 1),
        "branch7x7dbl_3": (width, width, 1, 7),
        "branch7x7dbl_4": (width, width, 7, 1),
        "branch7x7dbl_5": (192, width, 1, 7),
        "branch_pool": (192, 768, 1, 1),
    }


KERNELS_B = {
    "branch3x3": (384, 288, 3, 3),
    "branch3x3dbl_1": (64, 288, 1, 1),
    "branch3x3dbl_2": (96, 64, 3, 3),
    "branch3x3dbl_3": (96, 96, 3, 3),
}
KERNELS_D = {
    "branch3x3_1": (192, 768, 1, 1),
    "branch3x3_2": (320, 192, 3, 3),
    "branch7x7x3_1": (192, 768, 1, 1),
    "branch7x7x3_2": (192, 192, 1, 7),
    "branch7x7x3_3": (192, 192, 7, 1),
    "branch7x7x3_4": (192, 192, 3, 3),
}
STEM = [{"": (32, 3, 3, 3)}, {"": (32, 32, 3, 3)}, {"": (64, 32, 3, 3)}]
MIXED_5 = [kernels_a(192, 32), kernels_a(256, 64), kernels_a(288, 64)]
TRUNKS: dict[str, list[Kernels]] = {
    "coarse": [
        *STEM, {}, {"": (80, 64, 1, 1)}, {"": (192, 80, 3, 3)}, {}, *MIXED_5, KERNELS_B,
        kernels_c(128), kernels_c(160), kernels_c(160), kernels_c(192), KERNELS_D,
    ],
    "fine": [*STEM, {"": (80, 64, 3, 3)}, {"": (192, 80, 3, 3)}, *MIXED_5],
}  # fmt: skip
"""What each index of ``cnn`` holds; the poolings hold nothing."""


def expected_state(level: str, channels: int) -> Kernels:
    """Every key of the checkpoint and its shape, by the documented layers."""
    state: Kernels = {}

    def norm(key: str, size: int) -> Kernels:
        names = ("weight", "bias", "running_mean", "running_var")
        return {f"{key}.{name}": (size,) for name in names} | {f"{key}.num_batches_tracked": ()}

    for i, blocks in enumerate(TRUNKS[level]):
        for branch, shape in blocks.items():
            prefix = f"cnn.{i}.{branch}." if branch else f"cnn.{i}."
            state |= {f"{prefix}conv.weight": shape} | norm(f"{prefix}bn", shape[0])
    head = len(TRUNKS[level])
    return state | {f"cnn.{head}.weight": (channels, channels, 1, 1)} | norm(f"cnn.{head + 1}", channels)


@pytest.mark.parametrize(
    ("level", "layer", "channels", "keys", "millions"),
    [("coarse", "Mixed_7a", 1280, 462, 12.31), ("fine", "Mixed_5d", 288, 162, 1.12)],
)
def test_keys_shapes_and_sizes_are_the_documented_ones(
    level: str, layer: str, channels: int, keys: int, millions: float
) -> None:
    net = InceptionNet(level, layer)
    found = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert found == expected_state(level, channels)
    assert len(found) == keys
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions
    assert {m.eps for name, m in net.named_modules() if name.endswith("bn")} == {1e-3}
    assert net.cnn[-1].eps == 1e-5


COARSE_SIZES = [(32, 81, 100), (32, 81, 100), (64, 81, 100), (64, 41, 50), (80, 41, 50), (192, 41, 50), (192, 21, 25)]
COARSE_SIZES += [(256, 21, 25), (288, 21, 25), (288, 21, 25), *5 * [(768, 11, 13)], *3 * [(1280, 11, 13)]]
FINE_SIZES = [(32, 81, 100), (32, 81, 100), (64, 81, 100), (80, 81, 100), (192, 81, 100), (256, 81, 100)]
FINE_SIZES += 4 * [(288, 81, 100)]


@pytest.mark.parametrize(
    ("level", "layer", "sizes"), [("coarse", "Mixed_7a", COARSE_SIZES), ("fine", "Mixed_5d", FINE_SIZES)]
)
@torch.inference_mode()
def test_sizes_layer_by_layer(level: str, layer: str, sizes: list[tuple[int, ...]]) -> None:
    x = torch.zeros(1, 3, 161, 199)
    found = []
    for module in InceptionNet(level, layer).eval().cnn:
        x = module(x)
        found.append(tuple(x.shape[1:]))
    assert found == sizes


@torch.inference_mode()
def test_a_block_is_its_branches_side_by_side() -> None:
    """Each group of channels comes of its own branch, in the documented order."""
    groups = {
        7: [("branch1x1", 64), ("branch5x5", 64), ("branch3x3dbl", 96), ("branch_pool", 32)],
        10: [("branch3x3.", 384), ("branch3x3dbl", 96), ("", 288)],
        11: [("branch1x1", 192), ("branch7x7_", 192), ("branch7x7dbl", 192), ("branch_pool", 192)],
        15: [("branch3x3", 320), ("branch7x7x3", 192), ("", 768)],
    }
    net = randomised(InceptionNet("coarse", "Mixed_7a"))
    for index, branches in groups.items():
        block = net.cnn[index]
        inputs = next(p.shape[1] for p in block.parameters())
        image = torch.rand(1, inputs, 6, 7, generator=torch.Generator().manual_seed(1))
        before = block(image)
        starts = np.cumsum([0, *(size for _, size in branches)])
        assert before.shape[1] == starts[-1]
        for (name, _), (start, stop) in zip(branches, pairwise(starts), strict=True):
            norms = [m for key, m in block.named_modules() if name and f"{key}.".startswith(name) and key[-2:] == "bn"]
            biases = [norm.bias.data.clone() for norm in norms]
            for norm in norms:
                norm.bias.data += 1
            after = block(image)
            for norm, bias in zip(norms, biases, strict=True):
                norm.bias.data = bias
            changed = (after != before).flatten(2).any(-1)[0].nonzero()[:, 0]
            assert bool(((changed >= start) & (changed < stop)).all())
            assert len(changed) > 0.5 * (stop - start) if name else len(changed) == 0


@torch.inference_mode()
def test_pooled_means_count_the_padding() -> None:
    """Of ones: 9 cells of 9 inside, 6 along the border, 4 in the corner."""
    pooled = symmetric(InceptionA(8, 32))(torch.ones(1, 8, 5, 5))[0, -32:] * (1 + 1e-3) ** 0.5
    for (row, column), share in {(2, 2): 9 / 9, (0, 2): 6 / 9, (4, 4): 4 / 9}.items():
        torch.testing.assert_close(pooled[:, row, column], torch.full((32,), share))


@pytest.mark.parametrize(
    ("level", "layer", "channels", "stride"),
    [
        ("coarse", "Conv2d_1a_3x3", 32, 2),
        ("coarse", "Conv2d_2b_3x3", 64, 4),
        ("coarse", "Conv2d_3b_1x1", 80, 4),
        ("coarse", "Conv2d_4a_3x3", 192, 8),
        ("coarse", "Mixed_5d", 288, 8),
        ("coarse", "Mixed_6a", 768, 16),
        ("fine", "Conv2d_2a_3x3", 32, 2),
        ("fine", "Mixed_5b", 256, 2),
    ],
)
@torch.inference_mode()
def test_truncation_keeps_the_head(level: str, layer: str, channels: int, stride: int) -> None:
    net = InceptionNet(level, layer).eval()
    assert (net.channels, net.stride) == (channels, stride)
    *_, head, norm = net.cnn
    assert isinstance(head, nn.Conv2d) and head.weight.shape == (channels, channels, 1, 1) and head.bias is None
    assert isinstance(norm, nn.BatchNorm2d)
    assert net(torch.zeros(1, 3, 97, 130)).shape[1:] == (channels, -(-97 // stride), -(-130 // stride))


@torch.inference_mode()
def test_without_its_second_pooling_the_coarse_network_has_stride_8() -> None:
    net = InceptionNet("coarse", "Mixed_7a", no_maxpool=True).eval()
    assert net.stride == 8
    assert net(torch.zeros(1, 3, 161, 199)).shape[1:] == (1280, 21, 25)
    pooling = 6
    indices = {int(key.split(".")[1]) for key in expected_state("coarse", 1280)}
    moved = {index - (index > pooling) for index in indices}
    assert {int(key.split(".")[1]) for key in net.state_dict()} == moved


@pytest.mark.parametrize(
    ("level", "layer", "no_maxpool"),
    [("coarse", "Mixed_7a", False), ("coarse", "Mixed_7a", True), ("fine", "Mixed_5d", False)],
)
@torch.inference_mode()
def test_a_cell_is_centred_on_its_pixel(level: str, layer: str, no_maxpool: bool) -> None:
    """An impulse at pixel stride * i spreads evenly around cell i; half a stride off, it does not."""
    net = symmetric(InceptionNet(level, layer, no_maxpool))
    cell = 64 // net.stride if level == "coarse" else 20
    pixel = cell * net.stride
    image = torch.zeros(1, 3, 2 * pixel + 1, 2 * pixel + 1)
    image[..., pixel, pixel] = 1
    seen = net(image)[0]
    for axis in (-1, -2):
        torch.testing.assert_close(seen, seen.flip(axis), rtol=1e-3, atol=1e-3 * float(seen.max()))
    peak = int(seen.sum(0).argmax())
    assert (peak // seen.shape[-1], peak % seen.shape[-1]) == (cell, cell)
    beside = net(image.roll(net.stride // 2, -1))[0]
    assert float((beside - beside.flip(-1)).abs().max()) > 0.01 * float(beside.max())


@torch.inference_mode()
def test_folded_batch_norms_change_nothing() -> None:
    image = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(2))
    for level, layer in (("coarse", "Mixed_7a"), ("fine", "Mixed_5d")):
        net = randomised(InceptionNet(level, layer))
        before = net(image)
        after = net.fold_batch_norms()(image)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))


def net_of(hyper: dict[str, Any], seed: int = 0) -> InceptionNet:
    return randomised(InceptionNet(hyper["level"], hyper["extraction_layer"], hyper.get("no_maxpool", False)), seed)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("inception")
    return [
        save_lightning(folder / f"{hyper['level']}.pth", net_of(hyper).state_dict(), hyper) for hyper in (COARSE, FINE)
    ]


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_inception(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def paper(files: list[Path]) -> FeatureNetwork:
    return load_network("inception", device="cpu", path=files)


@torch.inference_mode()
def test_checkpoints_give_the_networks_that_they_hold(paper: FeatureNetwork) -> None:
    image = np.ascontiguousarray(ros_world.frame(0, 0).image_rgb[:161, :199])
    seen = paper.extract(image)
    for level, hyper, stride in ((seen.coarse, COARSE, 16), (seen.fine, FINE, 2)):
        expected = net_of(hyper)(imagenet_batch(image, CPU))[0]
        torch.testing.assert_close(level.values, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        assert (level.grid.stride, level.grid.offset_px) == (stride, 0)
        assert (level.inverse_temperature, level.unit) == (1, False)
    assert seen.context.unit and seen.context.grid == seen.coarse.grid
    torch.testing.assert_close(seen.context.values, nn.functional.normalize(seen.coarse.values, dim=0))


def test_images_are_normalised_as_imagenet_is() -> None:
    batch = imagenet_batch(np.full((2, 3, 3), (255, 0, 51), np.uint8), CPU)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert batch.shape == (1, 3, 2, 3)
    assert batch[0, :, 1, 2].tolist() == pytest.approx(expected, abs=1e-5)


def test_raw_descriptors_are_sampled_as_they_are(paper: FeatureNetwork) -> None:
    coarse = paper.extract(np.ascontiguousarray(ros_world.frame(0, 0).image_rgb[:97, :130])).coarse
    between = coarse.sample(coarse.grid.pixel_from_cell(torch.tensor([[3.5, 2.0]])))[0]
    torch.testing.assert_close(between, (coarse.values[:, 2, 3] + coarse.values[:, 2, 4]) / 2)
    means = torch.tensor([[3.0, 4.0]])
    assert torch.equal(coarse.mixed(means), means)


def test_the_hash_names_both_files_in_any_order(small_files: list[Path], tmp_path: Path) -> None:
    coarse, fine = small_files
    other = save_lightning(tmp_path / "fine.pth", net_of(SMALL_FINE, seed=1).state_dict(), SMALL_FINE)
    pairs = ([coarse, fine], [fine, coarse], [coarse, other])
    one, turned, changed = (load_network("inception", device="cpu", path=pair).weights_hash for pair in pairs)
    assert one == turned != changed


def test_safetensors_serve_too(small_files: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "fine.safetensors"
    save_file(read_checkpoint(small_files[1]).state, file, metadata={"hyper_parameters": json.dumps(SMALL_FINE)})
    image = ros_world.frame(0, 0).image_rgb[:64, :80].copy()
    pairs = (small_files, [file, small_files[0]])
    one, other = (load_network("inception", device="cpu", path=pair).extract(image) for pair in pairs)
    assert torch.equal(one.fine.values, other.fine.values)


def without(hyper: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in hyper.items() if name != key}


@pytest.mark.parametrize(
    ("hyper", "said"),
    [
        ({**SMALL_FINE, "level": "medium"}, "level 'medium' is unknown, expected coarse or fine"),
        ({**SMALL_FINE, "extraction_layer": "Mixed_9z"}, "extraction_layer 'Mixed_9z' is unknown"),
        ({**SMALL_FINE, "extraction_layer": "Mixed_6a"}, "expected Conv2d_1a_3x3 to Mixed_5d"),
        ({**SMALL_FINE, "extraction_layer": "Mixed_5d"}, r"network 'inception fine Mixed_5d': cnn\.\S+ .* \(and"),
        ({**SMALL_FINE, "level": "coarse"}, "do not belong to network 'inception coarse Conv2d_4a_3x3'"),
        (without(SMALL_FINE, "level"), "do not say which network"),
        (without(SMALL_FINE, "extraction_layer"), "do not say which network"),
        ([1, 2], "do not say which network"),
    ],
)
def test_hyper_parameters_that_do_not_fit_are_refused(tmp_path: Path, hyper: Any, said: str) -> None:
    file = save_lightning(tmp_path / "fine.pth", net_of(SMALL_FINE).state_dict(), hyper)
    with pytest.raises(ModelError, match=said) as caught:
        load_network("inception", device="cpu", path=[file])
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([], "lacks weights of its coarse and its fine network; none come with this package"),
        (["coarse"], "lacks weights of its fine network"),
        (["fine"], "lacks weights of its coarse network"),
        (["coarse", "fine", "fine"], "are both of the fine network"),
    ],
)
def test_one_checkpoint_of_each_level_is_needed(small_files: list[Path], levels: list[str], said: str) -> None:
    by_level = dict(zip(("coarse", "fine"), small_files, strict=True))
    with pytest.raises(ModelError, match=said):
        load_network("inception", device="cpu", path=[by_level[level] for level in levels])


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_descriptors_that_no_map_can_hold_are_refused(small_files: list[Path], tmp_path: Path, scale: float) -> None:
    net = net_of(SMALL_FINE)
    net.cnn[-1].weight.data *= scale
    file = save_lightning(tmp_path / "fine.pth", net.state_dict(), SMALL_FINE)
    network = load_network("inception", device="cpu", path=[small_files[0], file])
    with pytest.raises(ModelError, match="maps store at most 65504"):
        network.extract(ros_world.frame(0, 0).image_rgb[:32, :32].copy())


def test_from_a_recording_to_poses_by_the_commands(
    small_files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With raw descriptors of the paper's kind: written to the map, averaged, compared; other weights are refused."""
    frames = [ros_world.frame(index, stamp_ns(i), noise_seed=i) for i, index in enumerate((0.0, 2.0, 4.0, 1.1, 3.1))]
    recording = write_tum(tmp_path / "corner", frames, queries=2)
    network = ["--network", "inception", "--weights", *map(str, small_files)]
    assert main(["build-map", str(recording), "-o", str(tmp_path / "map"), "--split", "map", *network]) == 0
    map_ = load_map(tmp_path / "map")
    assert map_.network_name == "inception"
    assert float(map_.arrays.coarse.float().norm(dim=1).std()) > 0.1, "raw descriptors are of many lengths"
    quick = [word for name, value in ros_world.QUICK.items() for word in ("--set", f"{name}={value}")]
    evaluate = ["evaluate", str(recording), "--map", str(tmp_path / "map"), "--split", "query", *quick]
    parameters = ["--set", "network=inception", "--set", f"weights={small_files[1]}:{small_files[0]}"]
    for chosen in (network, parameters):
        capsys.readouterr()
        assert main([*evaluate, *chosen]) == 0
        table = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line)
        figures = {name.strip(): value.split() for name, value in table.items()}
        assert figures["accepted"][0] == "2"
        assert figures["recall 0.05m 5deg"][:2] == ["100.0", "%"]
    for other, said in (
        ([], "was made by network inception"),
        (["--network", "inception"], "lacks weights"),
        (["--network", "vast"], "expected one of compact, inception, s2dnet"),
        (["--network", "compact", "--weights", str(small_files[0])], "do not belong to network 'compact'"),
        (["--weights", str(tmp_path / "none.pth")], "none.pth cannot be read"),
    ):
        capsys.readouterr()
        assert main([*evaluate, *other]) == 1
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
