"""The unit of a build's work: one output to make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from musubi.architecture import Architecture, Stage
from musubi.cache import format as files
from musubi.cache.building.masks import MASK
from musubi.cache.building.memory import Stamp
from musubi.data.sample import Item, kind_of

_ORIGINAL = 2**22
"""Pixels that a picture in its own size is taken to have, where nobody has looked: 2048 x 2048."""


@attrs.frozen(kw_only=True)
class Job:
    """One output to make: a stage run on an item, with one of its captions if the stage reads any.

    ``media`` is the stem of its files, ``sources`` are what it is made of, as it was when it was hashed.
    """

    stage: Stage
    item: Item
    caption: str | None
    fingerprint: str
    name: str
    media: str
    suffix: str
    sources: tuple[tuple[Path, Stamp], ...] = ()

    def file_names(self, parts: int) -> tuple[str, ...]:
        """Return the names of the files if the stage makes so many entries of the item."""
        if parts == 1:
            return (self._named(None) + files.SUFFIX,)
        return tuple(self._named(part) + files.SUFFIX for part in range(parts))

    def renamed(self, addition: str) -> Job:
        """Return the same job whose files have other names."""
        return attrs.evolve(self, media=f"{self.media}-{addition}")

    @property
    def words(self) -> str | None:
        """The caption that the files' metadata tell; None where they tell sizes, for what was made of pixels."""
        return None if self._seen else self.caption or ""

    @property
    def shape(self) -> tuple[object, ...]:
        """What jobs must agree in to be encoded together: the shapes of everything that is decoded for them."""
        item, reads = self.item, self.stage.reads
        seen = (item.kind, item.bucket, len(item.frames)) if self._seen else ()
        mask = self._length(item.mask) if item.mask is not None and "mask" in reads else 0
        return seen, mask, tuple(self._controls()) if "controls" in reads else ()

    @property
    def pixels(self) -> int:
        """How many pixels are decoded for it: frames x width x height, conditions included."""
        own = _area(self.item.bucket) * len(self.item.frames) if self._seen else 0
        if "originals" in self.stage.reads:
            own += _ORIGINAL * sum(map(len, self.item.controls.values()))
        if "controls" not in self.stage.reads:
            return own
        return own + sum(frames * width * height for _, frames, width, height in self._controls())

    @property
    def _seen(self) -> bool:
        return "pixels" in self.stage.reads or "mask" in self.stage.reads

    def _named(self, part: int | None) -> str:
        if self._seen:
            still = self.item.kind == "image"
            return files.latent_label(
                self.media,
                size=self.item.size if still else self.item.bucket,
                suffix=self.suffix,
                window=None if still else self.item.window,
                part=part,
            )
        section = "" if part is None else f"_{part:04d}"
        return files.text_label(self.media + section, suffix=self.suffix)

    def _controls(self) -> Iterator[tuple[str, int, int, int]]:
        for role, controls in sorted(self.item.controls.items()):
            yield from ((role, self._length(control.path), *control.bucket) for control in controls)

    def _length(self, path: Path) -> int:
        """Return how many frames are read of a condition: those of the window if it is a clip."""
        return len(self.item.frames) if path.is_dir() or kind_of(path) == "video" else 1


def alternatives(stage: Stage, item: Item) -> tuple[str | None, ...]:
    """Return the captions that a stage is run with: the item's, then the blank one if some draws drop them."""
    if "caption" not in stage.reads:
        return (None,)
    return item.captions + (("",) if item.dropout else ())


def stages_of(model: Architecture, item: Item) -> tuple[Stage, ...]:
    """Return what is to be done for an item."""
    return model.stages + ((MASK,) if item.mask is not None else ())


def media_of(stage: Stage, item: Item, number: int, fingerprint: str) -> str:
    """Return the stem of an output's files: the windows of a clip share the one of their caption.

    ``number`` counts the item's captions. What is made of the blank caption alone is nobody's own.
    """
    if stage.reads == ("caption",):
        if number == len(item.captions):
            return f"blank-{fingerprint[:8]}"
        return item.media + (f"_c{number:04d}" if number else "")
    stem = item.media if "pixels" in stage.reads or "mask" in stage.reads else item.name
    return stem + (f"_c{number:04d}" if number else "")


def suffix_of(stage: Stage, model: Architecture) -> str:
    """Return the architecture's suffix, with the stage's name where an earlier stage has taken the plain one."""
    if stage == MASK:
        return f"{model.cache_suffix}_{MASK.name}"  # the reference takes what ends in its suffix for latents
    pixels = "pixels" in stage.reads
    first = next(s for s in model.stages if ("pixels" in s.reads) == pixels)
    return model.cache_suffix if first == stage else f"{stage.name}_{model.cache_suffix}"


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
