"""Training learns, goes on where it stopped, leaves weights that load, and says what is wrong."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ros_world
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_recordings import stamp_ns, write_tum
from training_scenes import OnePair, options, small_config, texture, write_colmap, write_photos

from nre_ros.cli.main import main
from nre_ros.config import parameters
from nre_ros.errors import ConfigError, ModelError
from nre_ros.features import load_network
from nre_ros.features.compact import CompactNet
from nre_ros.training import (
    Mixture,
    PoseScore,
    Processes,
    Score,
    Trainer,
    TrainingConfig,
    config_text,
    judge,
    read_config,
)
from nre_ros.training.checkpoint import CHECKPOINT, WEIGHTS, Curve, load_checkpoint
from nre_ros.training.config import as_values
from nre_ros.training.loss import quick_in_bf16
from nre_ros.training.pairs import Pair
from nre_ros.training.schedule import make_optimizer, rate_share
from nre_ros.training.start import start_network
from nre_ros.training.validation import validate

pytest_plugins = ["training_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
MOVE = np.array([9, 5])
ALONE = Processes(0, 1, torch.device("cpu"))
CLEAN = {"pairs__strong_share": 0.0, "pairs__extreme_share": 0.0, "pairs__occluder_share": 0.0}


def shifted_pair(width: int = 128, height: int = 96) -> Pair:
    """A picture and the same moved by 9 and 5 pixels."""
    image, rng = texture(3), np.random.default_rng(0)
    uv = rng.uniform([0, 0], [width - 10, height - 6], (60, 2)).astype(np.float32)
    return Pair(
        image[5 : 5 + height, 9 : 9 + width], image[:height, :width], uv, (uv + MOVE).astype(np.float32)
    ).keep(np.all(uv + MOVE < [width - 1, height - 1], axis=1))  # fmt: skip


def trainer(folder: Path, config: TrainingConfig) -> Trainer:
    net, rate_factor = start_network("scratch", config)
    pair = shifted_pair()
    return Trainer(net, Mixture({"photos": OnePair(pair)}, config), {"same": [pair]}, {}, folder, ALONE, rate_factor)


def test_training_learns_a_pair_by_heart(tmp_path: Path) -> None:
    config = small_config(steps=40, optimizer__warm_up_steps=5, optimizer__average_decay=0.9, **CLEAN)
    learner = trainer(tmp_path, config)
    before = validate(learner.average, {"same": [shifted_pair()]}, config)["same"]
    losses: list[float] = []
    after = learner.run(lambda step, loss: losses.append(loss))["same"]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert after.coarse8 > max(0.9, before.coarse8 + 0.3)
    assert after.nre8 < 0.5 * before.nre8
    assert after.fine_px < 1.5


class Stop(Exception):
    pass


def interrupted_at(step: int):
    def progress(done: int, loss: float) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    config = small_config(steps=7, bf16=False, optimizer__warm_up_steps=2, **CLEAN)
    whole = trainer(tmp_path / "whole", config)
    whole.run(lambda step, loss: None)
    first = trainer(tmp_path / "halves", config)
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupted_at(4))
    second = trainer(tmp_path / "halves", config)
    second.resume()
    assert second.step == 4
    second.run(lambda step, loss: None)
    states = [load_file(tmp_path / name / WEIGHTS) for name in ("whole", "halves")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name in ("curves.csv", "validation.csv"):
        rows = [list(csv.DictReader((tmp_path / run / name).open())) for run in ("whole", "halves")]
        assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    losses = [
        [r["loss"] for r in csv.DictReader((tmp_path / run / "curves.csv").open())] for run in ("whole", "halves")
    ]
    assert losses[0] == losses[1]


def test_rows_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    config = small_config(steps=4, **CLEAN)
    first = trainer(tmp_path, config)
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupted_at(2))
    # as if killed between a row and the next checkpoint
    with (tmp_path / "curves.csv").open("a") as file:
        file.write((tmp_path / "curves.csv").read_text().splitlines()[-1].replace("2", "3", 1) + "\n")
    second = trainer(tmp_path, config)
    second.resume()
    second.run(lambda step, loss: None)
    assert [row["step"] for row in csv.DictReader((tmp_path / "curves.csv").open())] == ["1", "2", "3", "4"]


def test_half_lines_of_a_power_cut_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "whole.csv").write_text("step,loss\n1,0.5\n2,0.4\n3")
    Curve(tmp_path / "whole.csv", 5).add({"step": 6, "loss": 0.1})
    assert (tmp_path / "whole.csv").read_text().splitlines() == ["step,loss", "1,0.5", "2,0.4", "6,0.1"]
    (tmp_path / "cut.csv").write_bytes(b"st\0\xff")
    Curve(tmp_path / "cut.csv", 5).add({"step": 6, "loss": 0.1})
    assert (tmp_path / "cut.csv").read_text().splitlines() == ["step,loss", "6,0.1"]


@pytest.mark.parametrize(("capability", "quick"), [("AVX2", False), ("AVX512", True), ("DEFAULT", False)])
def test_bfloat16_is_for_processors_that_are_quick_at_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: str, quick: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    learner = trainer(tmp_path, small_config(steps=1, bf16=True, **CLEAN))
    kinds = []
    convolution = learner._net.down4[1].first.conv  # type: ignore[index, union-attr]
    convolution.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))  # type: ignore[union-attr]
    learner._advance(learner._mixture[0])
    assert kinds == [torch.bfloat16 if quick else torch.float32]
    assert quick_in_bf16(torch.device("cuda"))


def test_weights_load_as_a_network(tmp_path: Path) -> None:
    trainer(tmp_path, small_config(steps=2, **CLEAN)).run(lambda step, loss: None)
    features = load_network(path=tmp_path / WEIGHTS, device="cpu").extract(texture(1))
    norms = features.coarse.values.norm(dim=0)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert load_network(path=tmp_path / WEIGHTS, device="cpu").weights_hash != load_network(device="cpu").weights_hash


def test_one_odd_batch_does_not_spoil_the_weights(tmp_path: Path) -> None:
    config = small_config(steps=1, **CLEAN)
    learner = trainer(tmp_path, config)
    before = {name: value.clone() for name, value in learner.average.named_parameters()}
    batch = learner._mixture[0]
    odd = replace(batch, uv_px=torch.full_like(batch.uv_px, float("nan")))
    learner._advance(odd)
    assert all(torch.equal(value, before[name]) for name, value in learner._net.named_parameters())


def test_temperature_moves_fastest_and_only_weights_decay() -> None:
    config = TrainingConfig().optimizer
    weights, plain, temperature = make_optimizer(CompactNet(), config).param_groups
    assert weights["weight_decay"] > 0 == plain["weight_decay"] == temperature["weight_decay"]
    assert temperature["rate_factor"] == 10 * weights["rate_factor"]
    assert len(temperature["params"]) == 3
    assert all(p.ndim > 1 for p in weights["params"]) and all(p.ndim <= 1 for p in plain["params"])


def test_rate_rises_then_falls_to_nearly_nothing() -> None:
    config = TrainingConfig().optimizer
    shares = [rate_share(step, 5000, config) for step in range(5000)]
    top = config.warm_up_steps
    assert np.all(np.diff(shares[:top]) > 0) and np.all(np.diff(shares[top:]) < 0)
    assert max(shares) == pytest.approx(1, abs=1e-3) and shares[-1] == pytest.approx(config.final_rate_share, abs=1e-3)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: to the writer, a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_nothing_that_was_saved(tmp_path: Path) -> None:
    config = small_config(steps=4, **CLEAN)
    first = trainer(tmp_path, config)
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupted_at(2))
    second = trainer(tmp_path, config)
    second.resume()
    with small_files(1_000_000), pytest.raises(ModelError, match=r"cannot be written.*still whole"):
        second.run(lambda step, loss: None)
    assert load_checkpoint(tmp_path)["step"] == 2
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("spoil", ["cut", "text", "other", "later"])
def test_odd_checkpoints_are_refused(tmp_path: Path, spoil: str) -> None:
    config = small_config(steps=1, **CLEAN)
    path = tmp_path / CHECKPOINT
    if spoil == "cut":
        trainer(tmp_path, config).run(lambda step, loss: None)
        path.write_bytes(path.read_bytes()[:100_000])
    elif spoil == "text":
        path.write_text("weights")
    else:
        torch.save({"network": "other" if spoil == "other" else "compact", "format_version": 2}, path)
    with pytest.raises(ModelError, match=r"damaged|belongs to network"):
        trainer(tmp_path, config).resume()


def test_checkpoint_of_other_layers_is_refused(tmp_path: Path) -> None:
    config = small_config(steps=1, **CLEAN)
    trainer(tmp_path, config).run(lambda step, loss: None)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["net"].pop("down2.conv.weight")
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match="does not fit"):
        trainer(tmp_path, config).resume()


def test_odd_weights_are_refused(tmp_path: Path) -> None:
    config = TrainingConfig()
    with pytest.raises(ModelError, match="cannot be read"):
        start_network(str(tmp_path / "none"), config)
    save_file({name: value.contiguous() for name, value in CompactNet().state_dict().items()}, tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:100000])
    with pytest.raises(ModelError, match="damaged"):
        start_network(str(tmp_path / "cut"), config)
    save_file({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ModelError, match="do not belong to network"):
        start_network(str(tmp_path / "other"), config)


def test_a_start_from_weights_has_the_lower_rate() -> None:
    config = TrainingConfig()
    assert start_network("default", config)[1] < start_network("scratch", config)[1]


def test_shipped_parameters_are_the_defaults() -> None:
    assert (ROOT / "config/training.yaml").read_text() == config_text(TrainingConfig()), (
        'run: .venv/bin/python -c "from nre_ros.training import *; print(config_text(TrainingConfig()), end=str())" '
        "> config/training.yaml"
    )


def test_parameters_are_read_back(tmp_path: Path) -> None:
    config = small_config(optimizer__rate=1e-5, pairs__strong_share=0.123, steps=77, bf16=False)
    (tmp_path / "own.yaml").write_text(config_text(config))
    assert read_config(tmp_path / "own.yaml") == config
    (tmp_path / "part.yaml").write_text(yaml.safe_dump({"optimizer": {"rate": 0.25}}))
    assert as_values(read_config(tmp_path / "part.yaml")) == as_values(TrainingConfig()) | {"optimizer.rate": 0.25}


@pytest.mark.parametrize("text", ["optimizer: {speed: 1}", "steps: many", "steps: 0", "[", "- 1"])
def test_odd_parameters_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError):
        read_config(tmp_path / "own.yaml")


def test_every_parameter_has_bounds_or_choices() -> None:
    for parameter in parameters(TrainingConfig()):
        assert isinstance(parameter.default, bool) or parameter.choices or parameter.low is not None, parameter.name


def score(coarse: float, fine: float) -> Score:
    return Score(coarse, coarse, fine, 0.5, 0.5)


@pytest.mark.parametrize(
    ("coarse", "fine", "improved"),
    [
        (0.80, 1.0, False),
        (0.82, 1.0, True),
        (0.80, 0.9, True),
        (0.82, 0.9, True),
        (0.82, 1.2, False),
        (0.70, 0.5, False),
        (0.801, 0.999, False),
        (0.82, float("nan"), False),
    ],
)
def test_guard(coarse: float, fine: float, improved: bool) -> None:
    assert judge({"site": score(0.8, 1.0)}, {"site": score(coarse, fine)}, {}, {}).improved is improved


@pytest.mark.parametrize(
    ("within_1", "within_5", "improved"), [(0.5, 0.75, True), (0.4, 0.75, False), (0.5, 0.8, True)]
)
def test_guard_wants_as_many_poses_as_before(within_1: float, within_5: float, improved: bool) -> None:
    before, after = {"site": score(0.8, 1.0)}, {"site": score(0.9, 0.9)}
    poses = [{"site": PoseScore(24, 1.0, 0.01, *shares)} for shares in ((0.5, 0.75), (within_1, within_5))]
    assert judge(before, after, *poses).improved is improved


def test_guard_without_held_out_pairs_keeps_the_old_weights() -> None:
    assert not judge({}, {}, {}, {}).improved


TINY = small_config(steps=3, optimizer__warm_up_steps=1)
"""Parameters of a training through the command line."""


def said(capsys: pytest.CaptureFixture[str], argv: list[object], code: int = 1) -> str:
    capsys.readouterr()
    assert main([str(word) for word in ("train", *argv)]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos", 8)


def test_command_trains_on_photos_and_scenes(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, spoiled = write_colmap(tmp_path / "scene"), Path(shutil.copytree(photos, tmp_path / "spoiled"))
    (spoiled / "bad.jpg").write_bytes(b"\xff\xd8 not a photo")
    data = ["--images", photos, spoiled, "--colmap", scene, "--held-out", scene, "-o", tmp_path / "out"]
    more = options(small_config(steps=6, held_out_share=0.0))
    assert main([str(word) for word in ("train", *data, *more, "--start-from", "scratch")]) == 0
    output = capsys.readouterr()
    assert "weights of step 6" in output.out and "posed_strong: coarse within 1 cell" in output.out
    assert "1 unreadable images skipped" in output.err and "bad.jpg" in output.err
    assert load_network(path=tmp_path / "out" / WEIGHTS, device="cpu").name == "compact"
    rows = list(csv.DictReader((tmp_path / "out/validation.csv").open()))
    assert {row["set"] for row in rows} == {"posed", "posed_strong"} and {row["step"] for row in rows} == {"6"}


def test_held_out_images_that_cannot_be_read_are_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_colmap(tmp_path / "scene")
    for image in (scene / "images").iterdir():
        image.write_bytes(b"\xff\xd8 not a photo")
    error = said(capsys, ["--images", photos, "--held-out", scene, "-o", tmp_path / "out", *options(TINY)])
    assert "no pair could be made of" in error and "5 images are unreadable, such as" in error


def test_an_error_in_another_process_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    error = said(capsys, ["--images", tmp_path, "-o", tmp_path / "out", *options(replace(TINY, workers=1))])
    sentences = [line for line in error.splitlines() if "pair/s" not in line and line.strip()]
    assert len(sentences) == 1 and "1 files are unreadable" in sentences[0]


def test_a_training_is_not_overwritten(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--images", photos, "-o", tmp_path, *options(TINY)]
    said(capsys, argv, code=0)
    assert "already holds a training" in said(capsys, argv)
    # more steps, everything else as it was
    assert "weights of step 4" in said(capsys, ["--images", photos, "-o", tmp_path, "--resume", "--steps", 4], code=0)


def test_bad_input_is_one_sentence(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    out = ["-o", tmp_path / "out"]
    for argv, sentence in (
        ([], "nothing to train on"),
        (["--images", tmp_path / "empty"], "holds no JPEG or PNG"),
        (["--colmap", photos], "holds no COLMAP model"),
        (["--images", photos, "--resume"], "no training to resume"),
        (["--images", photos, "--start-from", tmp_path / "none"], "cannot be read"),
        (["--images", photos, "--set", "steps=0"], "expected 1 to"),
        (["--images", photos, "--set", "pairs.width=200"], "expected multiples of 32"),
        (["--images", photos, "--set", "loss.fine_jitter_px=30"], "expected at most 28.0"),
        (["--images", photos, "--threads", "0"], "expected at least 1"),
        (["--images", photos, "--from-map", tmp_path], "belong together"),
        (["--from-map", tmp_path, "--recording", tmp_path, "--rendered"], "its place alone"),
        (["--from-map", tmp_path, "--recording", tmp_path, "--start-from", "scratch"], "adapts weights"),
        (["--images", photos, "-o", photos / "0.png", *options(TINY)], "cannot be written"),
    ):
        error = said(capsys, [*out, *argv])
        assert sentence in error and error.strip().count("\n") == 0, error


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recording of the corner, and its map."""
    folder = tmp_path_factory.mktemp("place")
    frames = [ros_world.frame(i / 2, stamp_ns(i), noise_seed=i) for i in range(8)]
    recording, few = write_tum(folder / "recording", frames), ["--set", "points_per_keyframe=400"]
    assert main(["build-map", str(recording), "-o", str(folder / "map"), "--set", "keyframe_motion=0", *few]) == 0
    return recording, folder / "map"


def adapt(place: tuple[Path, Path], out: Path, **values: object) -> list[object]:
    few = options(small_config(site_steps=2, validation_pairs=4, **values))
    return ["--from-map", place[1], "--recording", place[0], "-o", out, *few]


def test_adapting_that_does_not_help_keeps_the_weights(
    place: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a rate of nothing changes nothing but the statistics that batch norms keep
    text = said(capsys, adapt(place, tmp_path, optimizer__rate=0.0, optimizer__average_decay=0.99999), code=0)
    assert "no improvement: keep the weights it started from (default)" in text
    assert not (tmp_path / WEIGHTS).exists()


def test_adapting_that_helps_keeps_the_new_weights(
    place: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, _ = start_network("default", TrainingConfig())
    with torch.no_grad():  # as bad a start as there can be: the finest descriptors say nothing of position
        net.heads["2"].weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(0))  # type: ignore[operator, union-attr]
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "poor.safetensors")
    argv = adapt(place, tmp_path / "out", optimizer__average_decay=0.9, optimizer__warm_up_steps=2)
    text = said(capsys, [*argv, "--start-from", tmp_path / "poor.safetensors", "--steps", 40], code=0)
    assert "kept the adapted weights" in text
    assert load_network(path=tmp_path / "out" / WEIGHTS, device="cpu").weights_hash


def test_a_map_of_another_recording_is_told(
    place: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tum(tmp_path / "other", [ros_world.frame(0.0, stamp_ns(99)), ros_world.frame(1.0, stamp_ns(98))])
    error = said(capsys, adapt((other, place[1]), tmp_path / "out"))
    assert "holds 0 of the map's" in error


def command(*argv: object) -> list[str]:
    return [sys.executable, "-m", "nre_ros.cli.main", "train", *map(str, argv)]


def test_kill_9_loses_little(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(steps=100000, checkpoint_s=1.0)
    argv = ["--images", photos, "-o", tmp_path, "--threads", 1, *options(config)]
    with subprocess.Popen(command(*argv), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        for _ in range(1200):
            if (tmp_path / CHECKPOINT).exists() and load_checkpoint(tmp_path)["step"]:
                break
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    step = load_checkpoint(tmp_path)["step"]
    assert isinstance(step, int) and step > 0
    text = said(capsys, ["--images", photos, "-o", tmp_path, "--resume", "--steps", step + 1], code=0)
    assert f"weights of step {step + 1}" in text


def test_two_processes_train_one_network(photos: Path, tmp_path: Path) -> None:
    argv = ["--images", photos, "-o", tmp_path, "--threads", 1, *options(TINY)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *command(*argv)[1:]], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights of step 3") == 1
    assert [row["step"] for row in csv.DictReader((tmp_path / "curves.csv").open())] == ["1", "2", "3"]
