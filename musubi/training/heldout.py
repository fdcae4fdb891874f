"""The held-out items of a cache, always the same, in the same batches and with the same words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from musubi.architecture import Architecture
from musubi.batch import Batch, collate
from musubi.cache import format as files
from musubi.cache.cache import Cache
from musubi.cache.manifest import CachedItem
from musubi.cache.units import Files, Unit, units_of

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class HeldOutBatch:
    """Entries of one batch key that are measured together, each with the first of its captions."""

    folder: Path
    units: tuple[Unit, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells the entries apart: an item may have several."""
        return tuple(unit.label for unit in self.units)

    def read(self) -> Batch:
        """Return the entries' tensors; raises ``CacheError`` if a file is missing or damaged."""
        entries = [self._entry(unit.fixed + unit.captions[0]) for unit in self.units]
        items = [unit.item for unit in self.units]
        return collate(entries, items=[item.name for item in items], bucket=items[0].bucket_label)

    def _entry(self, parts: Files) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for file in parts:
            tensors |= files.load(self.folder / file.name, sha256=file.sha256)
        return tensors


def held_out(
    cache: Cache[Architecture], *, items: int | None = None, seed: int = 0, batch_size: int | None = None
) -> tuple[HeldOutBatch, ...]:
    """Return the held-out items, each once however often its dataset repeats it, in batches of one batch key.

    Args:
        cache: A built cache.
        items: At most this many; which ones depends on their names and ``seed`` alone.
        seed: Chooses the items.
        batch_size: Entries in a batch; None means that of each item's dataset.

    Raises:
        CacheError: The cache is not built, holds out nothing, or lacks a file.
    """
    cache.loader(split="validation")  # finds what is missing
    manifest = cache.manifest()
    known = (cached for cached in manifest.items if cached.item.split == "validation")
    units = [
        unit for cached in _chosen(known, items, seed) for unit in units_of(cached, manifest) if _is_first(unit, cached)
    ]
    groups: dict[tuple[str, str, int], list[Unit]] = {}
    for unit in units:
        size = batch_size or unit.item.batch_size
        groups.setdefault((unit.item.bucket_label, unit.key, size), []).append(unit)
    return tuple(
        HeldOutBatch(folder=cache.path, units=part) for key in sorted(groups) for part in _cut(groups[key], key[-1])
    )


def _chosen(known: Iterable[CachedItem], most: int | None, seed: int) -> Sequence[CachedItem]:
    return sorted(known, key=lambda cached: _rank(cached.item.name, seed))[:most]


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).hexdigest()


def _is_first(unit: Unit, cached: CachedItem) -> bool:
    """Return whether this is the first of an entry's repeats."""
    return cached.item.repeats == 1 or unit.label.endswith("/0")


def _cut(units: Sequence[Unit], size: int) -> Iterable[tuple[Unit, ...]]:
    ordered = sorted(units, key=lambda unit: unit.label)
    return (tuple(ordered[start : start + size]) for start in range(0, len(ordered), size))
