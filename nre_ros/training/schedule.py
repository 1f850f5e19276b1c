"""AdamW as this training uses it, and its learning rate from step to step."""

from __future__ import annotations

import math

import torch
from torch import nn

from nre_ros.features.compact import CompactNet
from nre_ros.training.config import OptimizerConfig


def make_optimizer(net: CompactNet, config: OptimizerConfig) -> torch.optim.AdamW:
    """Weights of convolutions decay, biases and norms do not, temperatures neither and move faster."""
    groups: dict[str, list[nn.Parameter]] = {"weight": [], "plain": [], "temperature": []}
    for name, parameter in net.named_parameters():
        kind = "temperature" if name.startswith("log_inverse_temperature") else "weight"
        groups[kind if kind == "temperature" or parameter.ndim > 1 else "plain"].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups["weight"], "weight_decay": config.weight_decay, "rate_factor": 1.0},
            {"params": groups["plain"], "weight_decay": 0.0, "rate_factor": 1.0},
            {"params": groups["temperature"], "weight_decay": 0.0, "rate_factor": config.temperature_rate},
        ],
        betas=(0.9, 0.98),
    )


def rate_share(step: int, steps: int, config: OptimizerConfig) -> float:
    """The learning rate of a step as a share of the highest: a straight rise, then half a cosine."""
    if step < min(config.warm_up_steps, steps):
        return (step + 1) / min(config.warm_up_steps, steps)
    done = (step - config.warm_up_steps) / max(steps - config.warm_up_steps, 1)
    return config.final_rate_share + (1 - config.final_rate_share) * (1 + math.cos(math.pi * done)) / 2
