"""From a built cache to batches: seeded order, exact positions, items of one batch key together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import attrs

from musubi.batch import Batch, collate
from musubi.cache import format as files
from musubi.cache import manifest as manifests
from musubi.cache.manifest import CachedFile, Manifest
from musubi.cache.order import Key, Order
from musubi.cache.units import Draw, Unit, units_of
from musubi.cache.verify import file_issue
from musubi.core.errors import CacheError, ConfigError, Issue, shown
from musubi.core.fields import one_of
from musubi.data.sample import Split

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")
T = TypeVar("T")
_AHEAD = 2
"""Batches that are read in the background."""


@attrs.frozen
class Position:
    """Where the next batch is: the epoch, and the number of batches that all processes have taken from it."""

    epoch: int = 0
    index: int = 0


class Loader:
    """Draw batches from a built cache, epoch after epoch, without end.

    Each epoch has every item of the ``split`` as often as its dataset repeats it, in an order that ``seed`` and the
    epoch alone decide; so do the captions that are drawn. A batch holds items of one batch key, and the smaller rest of
    a key is a batch too. Process ``rank`` of ``world`` gets every ``world``-th batch of the endless sequence, which is
    the same for any number of processes: nothing is left out at the end of an epoch.

    Raises:
        ConfigError: There is no such split.
        CacheError: The cache is not built, has no such item, or lacks a file.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        split: Split = "train",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        wrong = one_of(*get_args(Split))(split)
        if wrong is not None:
            raise ConfigError("loader", [Issue("split", wrong)])
        self._folder, self._seed, self._rank, self._world = Path(folder), seed, rank, world
        manifest = manifests.load(self._folder)
        _check_files(self._folder, manifest)
        self.content = manifest.content
        self.items = sum(cached.item.split == split for cached in manifest.items)
        if not self.items:
            hint = "hold some out with dataset.with_validation(share=0.1)" if split == "validation" else "build it anew"
            raise CacheError("too little data", [Issue(shown(self._folder), f"holds no item for {split}", hint)])
        self._order = _order(manifest, split, batch_size, seed)
        self._checked: set[str] = set()

    def __len__(self) -> int:
        """Return the batches of an epoch, those of all processes together."""
        return len(self._order)

    @property
    def largest(self) -> int:
        """The number of items in the largest batch."""
        return self._order.largest

    def position(self, taken: int) -> Position:
        """Return where the next batch is after ``taken`` batches of all processes together."""
        return Position(*divmod(taken, len(self)))

    def batches(self, position: Position | None = None) -> Generator[tuple[Position, Batch], None, None]:
        """Yield (next position, batch) from a position on, for ever; the next batches are read ahead.

        The next position is where all processes go on once each has taken its batch.

        Raises:
            CacheError: A file is missing or damaged; raised in the place of its batch.
        """
        yield from _ahead(self._read, self._planned(position or Position()))

    def epoch(self, number: int) -> tuple[tuple[str, ...], ...]:
        """Return the names of the items of every batch of an epoch, for all processes, without reading entries."""
        return tuple(tuple(draw.unit.item.name for draw in batch) for batch in self._epoch(number))

    def _planned(self, position: Position) -> Iterator[tuple[Position, Sequence[Draw]]]:
        taken = position.epoch * len(self) + position.index
        epoch, batches = -1, list[list[Draw]]()
        while True:
            here = self.position(taken + self._rank)
            if here.epoch != epoch:
                epoch, batches = here.epoch, self._epoch(here.epoch)
            taken += self._world
            yield self.position(taken), batches[here.index]

    def _epoch(self, number: int) -> list[list[Draw]]:
        """Return the batches of an epoch, with the captions that are drawn for it."""
        return [[unit.draw(f"{self._seed}/{number}") for unit in units] for units in self._order.epoch(number)]

    def _read(self, planned: tuple[Position, Sequence[Draw]]) -> tuple[Position, Batch]:
        after, draws = planned
        entries = [self._entry(draw.files) for draw in draws]
        items = [draw.unit.item for draw in draws]
        batch = collate(entries, items=[item.name for item in items], bucket=items[0].bucket_label)
        return after, attrs.evolve(batch, weights=tuple(item.weight for item in items))

    def _entry(self, parts: Sequence[CachedFile]) -> Mapping[str, Tensor]:
        """Return the tensors of all stages together; a file's checksum is checked the first time it is read."""
        tensors: dict[str, Tensor] = {}
        for file in parts:
            known = file.name in self._checked
            tensors |= files.load(self._folder / file.name, sha256=None if known else file.sha256)
            self._checked.add(file.name)
        return tensors


def _order(manifest: Manifest, split: Split, batch_size: int | None, seed: int) -> Order[Unit]:
    """Gather what may share a batch, repeats included, in the order of the items."""
    groups: dict[Key, list[Unit]] = {}
    sizes: dict[Key, int] = {}
    for cached in manifest.items:
        if cached.item.split == split:
            size = batch_size or cached.item.batch_size
            for unit in units_of(cached, manifest):
                key = (*cached.item.bucket, cached.item.window.count, unit.key, size)
                groups.setdefault(key, []).append(unit)
                sizes[key] = size
    return Order(groups, sizes, seed=seed)


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Make sure that every file is there and has its size."""
    wrong = [issue for file in manifest.files if (issue := file_issue(folder, file)) is not None]
    if wrong:
        raise CacheError("damaged cache", wrong)


def _ahead(read: Callable[[T], R], planned: Iterator[T]) -> Iterator[R]:
    """Yield ``read`` of everything planned, in order, a little ahead in one thread that ends with the iterator."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="musubi-loader")
    waiting: deque[Future[R]] = deque()
    try:
        waiting.extend(pool.submit(read, plan) for plan in islice(planned, _AHEAD))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, plan) for plan in islice(planned, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
