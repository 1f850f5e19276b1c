"""Several processes train together: torch.distributed, as ``torchrun`` sets it up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nre_ros.features import resolve_device


@dataclass(frozen=True)
class Processes:
    """This process is number ``rank`` of ``count`` and trains on ``device``."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes."""
        return DistributedDataParallel(module) if self.count > 1 else module

    def agree(self, stop: bool) -> bool:
        """Whether any process wants to stop."""
        if self.count == 1:
            return stop
        votes = torch.tensor(int(stop), device=self.device)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        return bool(votes)


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """As the environment says (WORLD_SIZE and so on, set by ``torchrun``); alone without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = resolve_device(device)
    if count == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), count, chosen)
    finally:
        torch.distributed.destroy_process_group()
