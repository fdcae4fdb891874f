"""Which items make up which batch in which epoch: the reference's shuffles, from a generator of their own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[int | str, ...]
"""What units must agree in to share a batch; batches are laid out in the order of their keys."""


class Order(Generic[T]):
    """Shuffle groups of units and the batches made of them, epoch after epoch; each shuffle starts from the last one.

    ``groups`` are what may share a batch, in the order in which their first units were found; ``sizes`` are the numbers
    of units in their batches, of which a group's last may have fewer. The order depends on ``seed`` and the epoch only.
    Source: the reference's ``BucketBatchManager``, whose epoch 1 is epoch 0 here.
    """

    def __init__(self, groups: Mapping[Key, Sequence[T]], sizes: Mapping[Key, int], *, seed: int) -> None:
        self._fresh = [list(units) for units in groups.values()]
        self._sizes = [sizes[key] for key in groups]
        places = {key: place for place, key in enumerate(groups)}
        self._layout = [(places[k], start) for k in sorted(groups) for start in range(0, len(groups[k]), sizes[k])]
        self._seed = seed
        self._start_over()

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self._layout)

    @property
    def largest(self) -> int:
        """The number of units in the largest batch."""
        return max(min(size, len(units)) for units, size in zip(self._fresh, self._sizes, strict=True))

    def epoch(self, number: int) -> list[Sequence[T]]:
        """Return the batches of an epoch, counted from 0."""
        if number < self._done:
            self._start_over()
        while self._done <= number:
            self._shuffle()
        return [self._units[place][start : start + self._sizes[place]] for place, start in self._order]

    def _start_over(self) -> None:
        self._units, self._order, self._done = [list(units) for units in self._fresh], list(self._layout), 0

    def _shuffle(self) -> None:
        self._done += 1
        source = random.Random(self._seed + self._done)
        for units in self._units:
            source.shuffle(units)
        source.shuffle(self._order)
