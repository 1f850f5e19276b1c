"""Weight files: every kind is read, and none can run code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from paper_networks import save_lightning
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from nre_ros.errors import ModelError
from nre_ros.features.checkpoints import Checkpoint, read_checkpoint

HYPER = {"level": "coarse", "no_maxpool": True, "lr": 1e-3, "image": {"resize": 50}, "sizes": [1, 2], "path": None}


@pytest.fixture
def state() -> dict[str, Tensor]:
    return nn.Linear(3, 2).state_dict()


class Planted:
    """Classes of a package that is not here, to be pickled by reference to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, path: str, bases: tuple[type, ...] = ()) -> type:
        module_name, _, name = path.rpartition(".")
        made = type(name, bases, {"__module__": module_name})
        parts = module_name.split(".")
        for i in range(len(parts)):
            package = ".".join(parts[: i + 1])
            if package not in sys.modules:
                self._monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        setattr(sys.modules[module_name], name, made)
        return made


def planted_object(cls: type, **attributes: Any) -> Any:
    made = cls.__new__(cls)
    vars(made).update(attributes)
    return made


def namespace(planted: Planted) -> Any:
    return argparse.Namespace(**HYPER)


def attribute_dict(planted: Planted) -> Any:
    cls = planted("pytorch_lightning.utilities.parsing.AttributeDict", (dict,))
    return cls({**HYPER, "image": cls(resize=50)})


def omegaconf(planted: Planted) -> Any:
    """Pickled as OmegaConf 2 does: content beside a parent and metadata that refer to types."""
    classes = {name: planted(f"omegaconf.{name}") for name in ("base.ContainerMetadata", "base.Metadata")}
    leaf, mapping, sequence = (
        planted(f"omegaconf.{name}") for name in ("nodes.AnyNode", "dictconfig.DictConfig", "listconfig.ListConfig")
    )

    def tree(value: Any, parent: Any) -> Any:
        cls = {dict: mapping, list: sequence}.get(type(value), leaf)
        kind = classes["base.Metadata" if cls is leaf else "base.ContainerMetadata"]
        made = planted_object(cls, _parent=parent)
        made._metadata = planted_object(kind, ref_type=Any, object_type=dict, flags={}, cache=defaultdict(dict))
        if isinstance(value, dict):
            made._content = {key: tree(item, made) for key, item in value.items()}
        elif isinstance(value, list):
            made._content = [tree(item, made) for item in value]
        else:
            made._val = value
        return made

    return tree(HYPER, None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept_in", [lambda planted: HYPER, namespace, attribute_dict, omegaconf])
def test_hyper_parameters_are_read_from_whatever_holds_them(
    state: dict[str, Tensor], tmp_path: Path, kept_in: Any, zipped: bool
) -> None:
    file = tmp_path / "weights.pth"
    with pytest.MonkeyPatch.context() as monkeypatch:
        planted = Planted(monkeypatch)
        callback = planted("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
        callbacks = {callback: {"best_model_score": torch.ones(())}}
        save_lightning(file, state, kept_in(planted), zipped, callbacks=callbacks)
    allowed = set(torch.serialization.get_safe_globals())
    read = read_checkpoint(file)
    assert set(torch.serialization.get_safe_globals()) == allowed
    assert read.settings == {"hyper_parameters": HYPER}
    assert read.state.keys() == state.keys()
    assert all(torch.equal(read.state[key], state[key]) for key in state)


def test_safetensors_hold_their_settings_as_json(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(state, file, metadata={"hyper_parameters": json.dumps(HYPER), "format": "pt"})
    read = read_checkpoint(file)
    assert read.settings == {"hyper_parameters": HYPER}
    assert all(torch.equal(read.state[key], state[key]) for key in state)


def test_a_bare_state_is_a_checkpoint(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    read = read_checkpoint(tmp_path / "weights.pth")
    assert read.settings == {} and read.state.keys() == state.keys()


def test_the_digest_is_the_files(state: dict[str, Tensor], tmp_path: Path) -> None:
    one = read_checkpoint(save_lightning(tmp_path / "one.pth", state, HYPER))
    (tmp_path / "copy.pth").write_bytes((tmp_path / "one.pth").read_bytes())
    other = read_checkpoint(save_lightning(tmp_path / "other.pth", state, {**HYPER, "lr": 2e-3}))
    assert one.digest == read_checkpoint(tmp_path / "copy.pth").digest != other.digest


class Malicious:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self._reduced = call, arguments

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
@pytest.mark.parametrize(("call", "named"), [(os.mkdir, "posix.mkdir"), (exec, "exec"), (getattr, "getattr")])
def test_code_in_a_file_is_refused_and_not_run(
    state: dict[str, Tensor], tmp_path: Path, call: Any, named: str, place: str, zipped: bool
) -> None:
    mark, file = tmp_path / "mark", tmp_path / "weights.pth"
    arguments = {os.mkdir: [str(mark)], exec: [f"open({str(mark)!r}, 'w')"], getattr: [0, "real"]}
    content = {"state_dict": state, "hyper_parameters": HYPER, "callbacks": {}}
    content[place] = {**content[place], "extra": Malicious(call, *arguments[call])}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=rf"an object of {named}, which is not allowed") as caught:
        read_checkpoint(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()


def test_an_unknown_class_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.MonkeyPatch.context() as monkeypatch:
        settings = planted_object(Planted(monkeypatch)("easydict.EasyDict"), level="coarse")
        save_lightning(file, state, settings)
    with pytest.raises(ModelError, match=r"hold an object of easydict\.EasyDict, which is not allowed"):
        read_checkpoint(file)


def test_a_torch_that_could_be_made_to_run_code_reads_safetensors_only(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_lightning(tmp_path / "weights.pth", state, HYPER)
    save_file(state, tmp_path / "weights.safetensors")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1+cu121"))
    with pytest.raises(ModelError, match=r"install torch 2\.6 or later, or convert them to safetensors"):
        read_checkpoint(tmp_path / "weights.pth")
    assert read_checkpoint(tmp_path / "weights.safetensors").state.keys() == state.keys()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "cannot be read: No such file"),
        (lambda file: file.write_bytes(b""), "are damaged"),
        (lambda file: file.write_bytes(b"no weights at all"), "are damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:1000]), "are damaged"),
        (lambda file: file.write_bytes(file.read_bytes()[:-30]), "are damaged"),
        (lambda file: torch.save([1, 2], file), "hold a list"),
        (lambda file: torch.save({}, file), "hold no network"),
        (lambda file: torch.save({"state_dict": {"a": 1}}, file), "hold no network"),
        (lambda file: torch.save({"level": "coarse"}, file), "hold no network"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(
    state: dict[str, Tensor], tmp_path: Path, spoil: Any, said: str
) -> None:
    file = save_lightning(tmp_path / "weights.pth", state, HYPER)
    spoil(file)
    with pytest.raises(ModelError, match=said) as caught:
        read_checkpoint(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value), "torch's own advice is to run the file's code"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bias": None}, "bias is missing"),
        ({"more": torch.zeros(1)}, "more is not of it"),
        ({"weight": torch.zeros(3, 2)}, r"weight has shape \(3, 2\), expected \(2, 3\)"),
        ({"bias": torch.tensor([0.0, torch.nan])}, "bias holds NaN or infinity"),
        ({"bias": None, "weight": None}, r"bias is missing \(and 1 more\)"),
    ],
)
def test_a_network_takes_its_own_tensors_only(
    state: dict[str, Tensor], changed: dict[str, Tensor | None], said: str
) -> None:
    tensors = {key: value for key, value in {**state, **changed}.items() if value is not None}
    net = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ModelError, match=f"weights here do not belong to network 'linear': {said}"):
        Checkpoint(tensors, {}, "", "here").fill(net, "linear")
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in before)
    Checkpoint(state, {}, "", "here").fill(net, "linear")
    assert torch.equal(net.weight, state["weight"])
