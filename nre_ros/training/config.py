"""Parameters of a training, and the YAML file that holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from nre_ros.config import Parameter, Value, param, parameters, with_values
from nre_ros.errors import ConfigError


@dataclass(frozen=True)
class MixtureConfig:
    """How often each kind of pair is drawn, among the kinds that were given."""

    photos: float = param(0.55, "Weight of photos under homographies", low=0.0, high=1.0)
    posed: float = param(0.3, "Weight of true 3D points seen in two posed images", low=0.0, high=1.0)
    rendered: float = param(0.15, "Weight of rendered rooms", low=0.0, high=1.0)
    worlds: int = param(6, "Rendered houses; each takes some seconds to make and about 400 MB", low=1, high=100)


@dataclass(frozen=True)
class PairConfig:
    """What a pair looks like."""

    width: int = param(320, "Longer side of the crops, a multiple of 32, pixels", low=64, high=2048)
    height: int = param(224, "Shorter side of the crops, a multiple of 32, pixels", low=64, high=2048)
    points: int = param(128, "Points of a pair, at most", low=8, high=4096)
    min_points: int = param(24, "A pair with fewer points is drawn anew", low=4, high=1024)
    warp_share: float = param(0.4, "Share of homographies with a smooth non-planar warp on top", low=0.0, high=1.0)
    occluder_share: float = param(0.3, "Share of pairs with things pasted in front", low=0.0, high=1.0)
    strong_share: float = param(0.35, "Share of pairs whose one image is dim, blurred or noisy", low=0.0, high=1.0)
    extreme_share: float = param(0.15, "Share of pairs whose one image is hardly usable", low=0.0, high=1.0)


@dataclass(frozen=True)
class LossConfig:
    """Eq. 10 at three strides."""

    fine_window_px: int = param(64, "Side of the windows of the fine loss, pixels", low=16, high=512)
    fine_jitter_px: float = param(
        24.0, "Most that a window's centre is off the true place, pixels", low=0.0, high=200.0
    )
    fine_full_every: int = param(
        4, "One of so many points takes part in the fine loss over the whole map", low=1, high=128
    )
    fine_full_weight: float = param(0.25, "Weight of the fine loss over the whole map", low=0.0, high=10.0)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine."""

    rate: float = param(1.5e-3, "Highest learning rate", low=0.0, high=1.0)
    final_rate_share: float = param(0.005, "Last learning rate, as a share of the highest", low=0.0, high=1.0)
    fine_tuning_share: float = param(
        0.3, "Share of the rate that is used when the training starts from weights", low=0.001, high=1.0
    )
    warm_up_steps: int = param(200, "Steps over which the rate rises", low=0, high=1000000)
    weight_decay: float = param(0.01, "Weight decay of convolutions", low=0.0, high=1.0)
    temperature_rate: float = param(10.0, "Learning rate of the temperatures, times the rate", low=0.0, high=1000.0)
    clip_norm: float = param(5.0, "Longest gradient", low=0.001, high=1e6)
    average_decay: float = param(0.998, "Decay of the running average of the weights", low=0.0, high=0.99999)


@dataclass(frozen=True)
class TrainingConfig:
    """One training."""

    steps: int = param(20000, "Steps of the whole schedule", low=1, high=100000000)
    site_steps: int = param(600, "Steps when weights are adapted to one place", low=1, high=1000000)
    batch: int = param(4, "Pairs in a step, on each process", low=1, high=4096)
    device: str = param("auto", "Where to train", choices=("auto", "cuda", "cpu"))
    bf16: bool = param(True, "Compute the network in bfloat16 where that is quick: CUDA, processors with AVX-512")
    workers: int = param(0, "Processes that make pairs; 0: the training's own", low=0, high=256)
    seed: int = param(0, "Seed of all that is drawn", low=0)
    checkpoint_s: float = param(45.0, "Longest time that a kill may cost, s", low=1.0, high=3600.0)
    log_steps: int = param(20, "Steps that one row of curves.csv sums up", low=1, high=100000)
    validation_steps: int = param(500, "Steps from one validation to the next", low=1, high=10000000)
    validation_pairs: int = param(64, "Pairs of each kind in a validation", low=1, high=10000)
    validation_poses: int = param(
        24, "Poses estimated in a validation, of each kind of posed pairs; 0: none", low=0, high=10000
    )
    held_out_share: float = param(0.04, "Share of the photos that is kept for validation", low=0.0, high=0.5)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def as_values(config: TrainingConfig) -> dict[str, Value]:
    """Every leaf under its dotted name."""
    return {parameter.name: parameter.default for parameter in parameters(config)}


def config_text(config: TrainingConfig) -> str:
    """The YAML file of a training: every parameter under a comment that describes it."""
    lines = ["# Parameters of nre_ros train; give an edited copy with --config."]
    group = ""
    for parameter in parameters(config):
        *path, leaf = parameter.name.split(".")
        if path and path[0] != group:
            group = path[0]
            lines.append(f"{group}:")
        indent = "  " * len(path)
        lines += [f"{indent}# {_comment(parameter)}", f"{indent}{leaf}: {_yaml(parameter.default)}"]
    return "\n".join(lines) + "\n"


def read_config(path: str | Path) -> TrainingConfig:
    """Defaults with the values of a YAML file. Raises ConfigError when it cannot be read or names what is unknown."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"training parameters {path} cannot be read: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"training parameters {path} hold a {type(content).__name__}, expected names with values")
    return with_values(TrainingConfig(), _flat(content or {}))


def _flat(tree: dict[object, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _comment(parameter: Parameter) -> str:
    limits = ""
    if parameter.choices:
        limits = " (one of " + ", ".join(parameter.choices) + ")"
    elif parameter.low is not None and parameter.high is not None:
        limits = f" ({parameter.low:g} to {parameter.high:g})"
    elif parameter.low is not None:
        limits = f" (at least {parameter.low:g})"
    return parameter.description + limits


def _yaml(value: Value) -> str:
    """YAML reads 1e-05 as text: floats are written out."""
    return (
        f"{value:.10f}".rstrip("0") + ("0" if value == int(value) else "")
        if type(value) is float
        else json.dumps(value)
    )
