"""The training loop: schedule, running average, checkpoints, curves."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nre_ros.errors import ModelError
from nre_ros.features.compact import CompactNet
from nre_ros.training.checkpoint import CHECKPOINT, WEIGHTS, Curve, load_checkpoint, save_checkpoint, save_weights
from nre_ros.training.config import as_values
from nre_ros.training.loss import PairLoss, loss_of, quick_in_bf16
from nre_ros.training.mixture import Mixture
from nre_ros.training.pairs import Batch, Pair
from nre_ros.training.pose_queries import PoseQuery
from nre_ros.training.pose_validation import PoseScore, validate_poses
from nre_ros.training.processes import Processes
from nre_ros.training.schedule import make_optimizer, rate_share
from nre_ros.training.validation import Score, validate

CURVES = "curves.csv", "validation.csv", "poses.csv"

Progress = Callable[[int, float], None]
"""Told the steps done and the latest loss."""

ValidationSets = Mapping[str, Sequence[Pair]]
PoseSets = Mapping[str, Sequence[PoseQuery]]


class Trainer:
    """Trains ``net`` on ``mixture`` and leaves checkpoints, weights and curves in ``folder``.

    ``pose_scores`` are those of the last validation. ``rate_factor`` multiplies all learning rates.
    Only the process that leads validates and writes.
    """

    def __init__(
        self,
        net: CompactNet,
        mixture: Mixture,
        validation: ValidationSets,
        poses: PoseSets,
        folder: Path,
        processes: Processes,
        rate_factor: float,
    ) -> None:
        self.config = mixture.config
        self.step = 0
        self.corrupt: set[str] = set()
        self.pose_scores: dict[str, PoseScore] = {}
        self._mixture, self._folder, self._processes = mixture, folder, processes
        self._validation, self._poses = validation, poses
        self._rate_factor = rate_factor
        self._net: CompactNet = net.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(self.config.optimizer.average_decay)
        self._average = AveragedModel(self._net, multi_avg_fn=average, use_buffers=True)
        self._optimizer = make_optimizer(self._net, self.config.optimizer)
        self._scores: dict[str, Score] = {}
        bf16 = self.config.bf16 and quick_in_bf16(processes.device)
        self._loss = processes.wrap(PairLoss(self._net, self.config.loss, bf16=bf16))

    @property
    def average(self) -> CompactNet:
        """The network with the running average of the weights."""
        net = self._average.module
        assert isinstance(net, CompactNet), "the average is of the network itself"
        return net

    def resume(self) -> None:
        """Go on from the folder's checkpoint: the same steps follow as if there had been no break."""
        state: dict[str, Any] = load_checkpoint(self._folder)
        try:
            self._net.load_state_dict(state["net"])
            self._average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self._rate_factor = int(state["step"]), float(state["rate_factor"])
            self.corrupt = set(state["corrupt"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"checkpoint {self._folder / CHECKPOINT} does not fit the network {type(self._net).__name__}; it was "
                "made by another version, start a new training"
            ) from error

    def run(self, progress: Progress) -> dict[str, Score]:
        """Train to the end of the schedule and write the averaged weights. Returns the last validation.

        Ctrl-C ends the step, saves and raises KeyboardInterrupt. Raises ModelError when something cannot be saved.
        """
        if self._processes.leads:
            self._save()  # a folder that cannot be written is better known now than after hours
            self._curves, self._marks, self._pose_marks = (Curve(self._folder / name, self.step) for name in CURVES)
            self._log = _Log(self.config.log_steps)
        with interruption() as interrupted:
            for batch in self._mixture.batches(self.step, self.config.steps):
                terms = self._advance(batch.to(self._processes.device))
                progress(self.step, terms["loss"])
                stop = self._processes.agree(interrupted.is_set())
                if self._processes.leads:
                    self._record(terms, stop)
                if stop:
                    raise KeyboardInterrupt
        if not self._processes.leads:
            return {}
        save_weights(self._folder / WEIGHTS, self.average.state_dict())
        return self._scores or self.validate()

    def validate(self) -> dict[str, Score]:
        """Scores of the averaged weights on the validation sets; those of poses go to ``pose_scores``."""
        self.pose_scores = validate_poses(self.average, self._poses)
        return validate(self.average, self._validation, self.config)

    def _record(self, terms: dict[str, float], stop: bool) -> None:
        """What is due after a step: a row of the curves, a validation, a checkpoint."""
        at_end = self.step == self.config.steps
        row = self._log.add(self.step, terms, self.config.batch * self._processes.count)
        if row is not None:
            self._curves.add(row | {"rate": self._rate()} | self._temperatures())
        if at_end or self.step % self.config.validation_steps == 0:
            self._scores = self.validate()
            for name, score in self._scores.items():
                self._marks.add(self._row(name, score))
            for name, pose_score in self.pose_scores.items():
                self._pose_marks.add(self._row(name, pose_score))
        if stop or at_end or time.monotonic() - self._saved_s > self.config.checkpoint_s:
            self._save()

    def _row(self, name: str, score: Score | PoseScore) -> dict[str, object]:
        return {"step": self.step, "set": name} | {k: round(v, 5) for k, v in vars(score).items()}

    def _advance(self, batch: Batch) -> dict[str, float]:
        """One step. A gradient that is not finite is left out: one odd batch must not end a night's training."""
        self._net.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate() * group["rate_factor"]
        loss, terms = loss_of(self._loss, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._net.parameters(), self.config.optimizer.clip_norm)
        if bool(torch.isfinite(norm)):
            self._optimizer.step()
            self._average.update_parameters(self._net)
        self.step += 1
        self.corrupt |= set(batch.corrupt)
        return {
            "loss": float(loss.detach()),
            **{name: float(term) for name, term in terms.items()},
            "gradient": float(norm),
        }

    def _rate(self) -> float:
        share = rate_share(self.step, self.config.steps, self.config.optimizer)
        return self.config.optimizer.rate * self._rate_factor * share

    def _temperatures(self) -> dict[str, float]:
        learned = self._net.log_inverse_temperature
        return {f"inverse_temperature{s}": round(float(value.detach().exp()), 3) for s, value in learned.items()}

    def _save(self) -> None:
        state = {
            "step": self.step,
            "rate_factor": self._rate_factor,
            "net": self._net.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "corrupt": sorted(self.corrupt),
            "config": as_values(self.config),
        }
        save_checkpoint(self._folder, state)
        self._saved_s = time.monotonic()


@contextlib.contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that a step is finished; the second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


class _Log:
    """Sums up steps to rows of the curve."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._rows: list[dict[str, float]] = []
        self._pairs = 0
        self._since_s = time.monotonic()

    def add(self, step: int, terms: dict[str, float], pairs: int) -> dict[str, float] | None:
        """The means since the last row, when one is due."""
        self._rows.append(terms)
        self._pairs += pairs
        if step % self._every:
            return None
        now_s = time.monotonic()
        means = {name: round(sum(row[name] for row in self._rows) / len(self._rows), 5) for name in terms}
        row = {"step": step, **means, "pairs_per_s": round(self._pairs / max(now_s - self._since_s, 1e-9), 3)}
        self._rows, self._pairs, self._since_s = [], 0, now_s
        return row
