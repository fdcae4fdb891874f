"""What a batch is made of: an item's entry, with one of its captions."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import chain

import attrs

from musubi.cache.manifest import CachedFile, CachedItem, Manifest
from musubi.data.sample import Item

Files = tuple[CachedFile, ...]


@attrs.frozen(kw_only=True, eq=False)
class Draw:
    """A unit with the files whose tensors make it up this time."""

    unit: Unit
    files: Files


@attrs.frozen(kw_only=True, eq=False)
class Unit:
    """One entry of one item; ``label`` is unique, repeats included.

    ``fixed`` are the files that it always has, ``captions`` the files of each of its captions, and ``blank`` those of
    the caption that has been dropped.
    """

    item: Item
    label: str
    key: str
    fixed: Files
    captions: tuple[Files, ...]
    blank: Files | None

    def draw(self, seed: str) -> Draw:
        """Choose a caption; equal seeds choose equally."""
        words = self.captions[0]
        if self.blank is not None or len(self.captions) > 1:
            text = f"{seed}/{self.label}".encode(errors="surrogateescape")
            source = random.Random(hashlib.sha256(text).hexdigest())
            dropped, place = source.random() < self.item.dropout, int(source.random() * len(self.captions))
            words = self.blank if dropped and self.blank is not None else self.captions[place]
        return Draw(unit=self, files=self.fixed + words)


def units_of(cached: CachedItem, manifest: Manifest) -> Iterator[Unit]:
    """Yield an item's entries as often as it is repeated.

    There is one, unless a stage makes several parts of an item, which then share what the other stages made.
    """
    item = cached.item
    made = [[manifest.outputs[print_].files for print_ in cached.outputs[stage]] for stage in _stages(cached, manifest)]
    parts = max(len(files) for alternatives in made for files in alternatives)
    worded = [alternatives for alternatives in made if len(alternatives) > 1]
    still = [alternatives[0] for alternatives in made if len(alternatives) == 1]
    for part in range(parts):
        fixed = tuple(_part(files, part) for files in still)
        choices = tuple(tuple(_part(a[n], part) for a in worded) for n in range(_choices(worded)))
        blank = choices[-1] if item.dropout and worded else None
        captions = choices[: len(item.captions)] if worded else ((),)
        for repeat in range(item.repeats):
            yield Unit(
                item=item,
                label=f"{item.name}/{part}/{repeat}",
                key=_key(chain(fixed, *choices)),
                fixed=fixed,
                captions=captions,
                blank=blank,
            )


def _stages(cached: CachedItem, manifest: Manifest) -> Iterator[str]:
    """Yield the stages that an item has outputs of: the model's own, then what the cache adds."""
    yield from (stage for stage in manifest.stages if stage in cached.outputs)
    yield from (stage for stage in sorted(cached.outputs) if stage not in manifest.stages)


def _choices(worded: Sequence[Sequence[Files]]) -> int:
    return len(worded[0]) if worded else 1


def _part(files: Files, part: int) -> CachedFile:
    return files[part if len(files) > 1 else 0]


def _key(files: Iterator[CachedFile]) -> str:
    """Return what must agree in a batch: the shapes of all tensors, whichever caption is drawn."""
    return " ".join(sorted({shape for file in files for shape in file.key.split()}))
