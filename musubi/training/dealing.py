"""Stratified noise levels: an epoch's shares dealt out to its batches."""

from __future__ import annotations

from torch import Tensor

from musubi.cache.loader import Loader, Position
from musubi.noise.timesteps import TimestepSampler
from musubi.training.rng import RunRandom


class Dealer:
    """Give every batch of an epoch its part of shares that cover [0, 1] evenly over the whole epoch."""

    def __init__(self, levels: TimestepSampler, loader: Loader, random: RunRandom) -> None:
        self._levels, self._loader, self._random = levels, loader, random
        self._pool: tuple[int, int, Tensor] | None = None

    def deal(self, place: Position, count: int) -> Tensor | None:
        """Return the ``count`` shares of the batch at ``place``; None if noise levels are not stratified."""
        if self._levels.strata is None:
            return None
        start = place.index * self._loader.largest
        return self._epoch(place.epoch)[start : start + count]

    def _epoch(self, epoch: int) -> Tensor:
        key = (epoch, self._random.attempt)
        if self._pool is None or self._pool[:2] != key:
            count = len(self._loader) * self._loader.largest
            self._pool = (*key, self._levels.shares(count, generator=self._random.shares(epoch)))
        return self._pool[2]
