"""The stream of batches: pairs of all kinds, mixed, degraded and stacked, each a function of its number."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset

from nre_ros.errors import ConfigError, NreError, RecordingError
from nre_ros.training.config import TrainingConfig
from nre_ros.training.pairs import Batch, Pair, PairSource, make_batch
from nre_ros.training.photometric import degrade_pair

_TRIES = 200


@dataclass(frozen=True)
class Mixture(Dataset[Batch]):
    """Batch number i depends on i, the seed and the data alone, so that a training can go on anywhere.

    ``sources`` by kind: photos, posed, rendered. With several processes, number ``rank`` of ``ranks``.
    """

    sources: Mapping[str, PairSource]
    config: TrainingConfig
    rank: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError for parameters that are possible each but not together."""
        pairs, loss = self.config.pairs, self.config.loss
        if pairs.width % 32 or pairs.height % 32:
            raise ConfigError(
                f"pairs.width and pairs.height are {pairs.width} and {pairs.height}, expected multiples of 32"
            )
        if loss.fine_jitter_px + 4 > loss.fine_window_px / 2:
            raise ConfigError(
                f"loss.fine_jitter_px is {loss.fine_jitter_px}, expected at most {loss.fine_window_px / 2 - 4}: "
                f"windows of {loss.fine_window_px} px must hold the true places"
            )

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.config.seed, self.rank, number])
        known = {name for source in self.sources.values() for name in source.corrupt}
        size = self.config.pairs.width, self.config.pairs.height
        width, height = size if rng.random() < 0.5 else size[::-1]
        pairs = [self.pair(rng, width, height) for _ in range(self.config.batch)]
        corrupt = {name for source in self.sources.values() for name in source.corrupt} - known
        return make_batch(pairs, self.config.pairs.points, self.config.loss.fine_jitter_px, rng, sorted(corrupt))

    def __len__(self) -> int:
        return self.config.steps

    def pair(self, rng: np.random.Generator, width: int, height: int) -> Pair:
        """One degraded pair of a kind drawn by weight; raises RecordingError when hardly any try gives one."""
        weights = np.array([getattr(self.config.mixture, kind) for kind in self.sources])
        if not weights.sum() > 0:
            raise RecordingError(
                f"the weights mixture.* of {', '.join(self.sources)} are all 0; give one of them a weight"
            )
        kind = list(self.sources)[int(rng.choice(len(weights), p=weights / weights.sum()))]
        for _ in range(_TRIES):
            pair = self.sources[kind].draw(rng, width, height)
            if pair is None:
                continue
            pair = degrade_pair(pair, rng, self.config.pairs)
            if len(pair.uv_a_px) >= self.config.pairs.min_points:
                return pair
        unreadable = self.sources[kind].corrupt
        such = f", such as {min(unreadable)}" if unreadable else ""
        raise RecordingError(
            f"{_TRIES} tries gave no pair of {kind} with {self.config.pairs.min_points} points ({len(unreadable)} "
            f"files are unreadable, too small or not of their camera's size{such}); check the images, or lower "
            "pairs.min_points"
        )

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches ``start`` to ``stop`` in order, made by ``workers`` processes beside this one."""
        loader = DataLoader(
            _Told(self),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.config.workers,
            worker_init_fn=_leave_interrupts,
        )
        for batch in loader:
            if isinstance(batch, NreError):
                raise batch
            yield batch


@dataclass(frozen=True)
class _Told(Dataset[Batch | NreError]):
    """Errors that a user can mend come as values: raised in another process, they would bring its traceback along."""

    mixture: Mixture

    def __getitem__(self, number: int) -> Batch | NreError:
        try:
            return self.mixture[number]
        except NreError as error:
            return error


def _leave_interrupts(_: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the trainer alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
