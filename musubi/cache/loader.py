"""From a built cache to batches: seeded order, exact positions, items of one batch key together."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from musubi.batch import Batch, collate
from musubi.cache import format as files
from musubi.cache import manifest as manifests
from musubi.cache.manifest import CachedFile, CachedItem, Manifest
from musubi.core.errors import CacheError, Issue, shown

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")
T = TypeVar("T")
_AHEAD = 2
"""Batches that are read in the background."""


@attrs.frozen
class Position:
    """Where the next batch is: the epoch, and the number of this process's batches already taken from it."""

    epoch: int = 0
    index: int = 0


@attrs.frozen(kw_only=True)
class Unit:
    """What is drawn: one entry of one item, as the files whose tensors make it up."""

    item: str
    bucket: str
    key: str
    batch_size: int
    files: tuple[CachedFile, ...]


class Loader:
    """Draw batches from a built cache, epoch after epoch, without end.

    Each epoch has every item as often as its dataset repeats it, in an order that ``seed`` and the epoch alone decide.
    A batch holds items of one batch key, and the smaller rest of a key is a batch too. Process ``rank`` of ``world``
    gets every ``world``-th batch; what does not divide evenly is left out, other batches in each epoch.

    Raises:
        CacheError: The cache is not built, is empty, lacks a file, or has fewer batches than there are processes.
    """

    def __init__(
        self, folder: Path | str, *, seed: int = 0, batch_size: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self._folder, self._seed, self._rank, self._world = Path(folder), seed, rank, world
        manifest = manifests.load(self._folder)
        _check_files(self._folder, manifest)
        self.content = manifest.content
        self.items = len(manifest.items)
        self._groups = _groups(manifest, batch_size)
        self._checked: set[str] = set()
        batches = sum(-(-len(units) // units[0].batch_size) for units in self._groups)
        self._batches = batches // world
        if not self._batches:
            hint = "use fewer processes, a smaller batch size or more items"
            raise CacheError(
                "too little data", [Issue(shown(self._folder), f"{batches} batches for {world} processes", hint)]
            )

    def __len__(self) -> int:
        """Return the batches of this process in an epoch."""
        return self._batches

    def batches(self, position: Position | None = None) -> Generator[tuple[Position, Batch], None, None]:
        """Yield (position of the next batch, batch) from a position on, for ever; the next batches are read ahead.

        Raises:
            CacheError: A file is missing or damaged; raised in the place of its batch.
        """
        yield from _ahead(self._read, self._planned(position or Position()))

    def epoch(self, number: int) -> tuple[tuple[str, ...], ...]:
        """Return the names of the items of every batch of an epoch, for this process, without reading entries."""
        return tuple(tuple(unit.item for unit in batch) for batch in self._epoch(number))

    def _planned(self, position: Position) -> Iterator[tuple[Position, Sequence[Unit]]]:
        epoch, index = position.epoch, position.index
        while True:
            for number, units in enumerate(self._epoch(epoch)[index:], start=index + 1):
                after = Position(epoch, number) if number < self._batches else Position(epoch + 1, 0)
                yield after, units
            epoch, index = epoch + 1, 0

    def _epoch(self, number: int) -> list[Sequence[Unit]]:
        """Return this process's batches of an epoch."""
        source = random.Random(_seeded(self._seed, number))
        chunks = [_chunks(_shuffled(units, source), units[0].batch_size) for units in self._groups]
        order = _shuffled(list(chain.from_iterable(chunks)), source)
        return order[self._rank : self._batches * self._world : self._world]

    def _read(self, planned: tuple[Position, Sequence[Unit]]) -> tuple[Position, Batch]:
        after, units = planned
        entries = [self._entry(unit) for unit in units]
        return after, collate(entries, items=[unit.item for unit in units], bucket=units[0].bucket)

    def _entry(self, unit: Unit) -> Mapping[str, Tensor]:
        """Return the tensors of all stages together; a file's checksum is checked the first time it is read."""
        tensors: dict[str, Tensor] = {}
        for file in unit.files:
            known = file.name in self._checked
            tensors |= files.load(self._folder / file.name, sha256=None if known else file.sha256)
            self._checked.add(file.name)
        return tensors


def _groups(manifest: Manifest, batch_size: int | None) -> list[list[Unit]]:
    """Gather what may share a batch, repeats included, in a fixed order."""
    grouped: dict[tuple[str, int], list[Unit]] = {}
    for cached in manifest.items:
        for unit in _units(cached, manifest, batch_size):
            grouped.setdefault((unit.key, unit.batch_size), []).extend([unit] * cached.item.repeats)
    return [grouped[key] for key in sorted(grouped)]


def _units(cached: CachedItem, manifest: Manifest, batch_size: int | None) -> Iterator[Unit]:
    """Yield an item's entries: one, unless a stage makes several, which share what the other stages made."""
    outputs = [manifest.outputs[cached.outputs[stage]].files for stage in manifest.stages]
    for part in range(max(len(made) for made in outputs)):
        chosen = tuple(made[part if len(made) > 1 else 0] for made in outputs)
        yield Unit(
            item=cached.item.name,
            bucket=cached.item.bucket_label,
            key=" ".join(sorted(chain.from_iterable(file.key.split() for file in chosen))),
            batch_size=batch_size or cached.item.batch_size,
            files=chosen,
        )


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Make sure that every file is there and has its size."""
    wrong = [issue for file in manifest.files if (issue := file_issue(folder, file)) is not None]
    if wrong:
        raise CacheError("damaged cache", wrong)


def file_issue(folder: Path, file: CachedFile) -> Issue | None:
    """Say what is wrong with a file as far as its directory entry tells."""
    path = folder / file.name
    hint = "build the cache again: only what is missing is encoded"
    try:
        found = path.stat().st_size
    except OSError:
        return Issue(shown(path), "is missing", hint)
    return None if found == file.bytes else Issue(shown(path), f"has {found} bytes instead of {file.bytes}", hint)


def _seeded(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "big")


def _shuffled(values: Sequence[T], source: random.Random) -> list[T]:
    """Shuffle by sorting random numbers: ``random()`` is the one method whose sequence Python promises to keep."""
    keys = [source.random() for _ in values]
    return [values[i] for i in sorted(range(len(values)), key=keys.__getitem__)]


def _chunks(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


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
