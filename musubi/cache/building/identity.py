"""The identity of an output: a fingerprint of everything that goes into it, so that equal ones are the same output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import attrs

from musubi.architecture import Architecture, Codec, Stage
from musubi.cache.building.masks import MASK
from musubi.cache.building.memory import FileMemory
from musubi.core.errors import DataError, Issue, shown
from musubi.data.sample import Item

_RULES = 2
"""Raised whenever decoding, resizing or a file's form changes, so that old entries are encoded again."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def encoders(model: Architecture, codec: Codec) -> dict[str, str]:
    """Return what each component of a model's stages is, without loading it.

    Raises:
        WeightsError: Its files cannot be read, or are something else.
    """
    return {c: codec.identity(c) for c in sorted({c for stage in model.stages for c in stage.components})}


class Identities:
    """Work out fingerprints for one model; ``components`` tells what its encoders are, ``dtype`` what they run in."""

    def __init__(self, *, model: Architecture, components: Mapping[str, str], dtype: str, memory: FileMemory) -> None:
        self._memory = memory
        general = {"rules": _RULES, "architecture": model.name}
        self._bases = {
            stage.name: _Base.of({**general, "stage": stage.name, "dtype": dtype}, stage, components)
            for stage in model.stages
        }
        geometry = {"stride": model.geometry.stride, "frame_step": model.geometry.frame_step}
        self._bases[MASK.name] = _Base.of({**general, "stage": MASK.name, **geometry}, MASK, {})

    def of(self, stage: Stage, item: Item, caption: str | None) -> str:
        """Return the fingerprint of what a stage makes of an item, with one of its captions if the stage reads any.

        Raises:
            DataError: One of the item's files cannot be read, or the caption is no text.
        """
        base = self._bases[stage.name]
        if stage.reads == ("caption",):
            return base.with_caption(item, caption or "")
        return base.with_facts({"caption": caption, **self._media(stage, item)})

    def _media(self, stage: Stage, item: Item) -> dict[str, object]:
        found: dict[str, object] = {}
        if set(stage.reads) & {"pixels", "controls", "mask"}:
            found |= {"frames": item.frames, "bucket": item.bucket}
        if "pixels" in stage.reads:
            found["pixels"] = self._memory.digest(item.path)
        if "controls" in stage.reads:
            found["controls"] = {
                role: [[self._memory.digest(control.path), control.bucket] for control in controls]
                for role, controls in item.controls.items()
            }
        if "originals" in stage.reads:
            found["originals"] = {
                role: [self._memory.digest(control.path) for control in controls]
                for role, controls in item.controls.items()
            }
        if "mask" in stage.reads:
            found["mask"] = None if item.mask is None else self._memory.digest(item.mask)
            found["size"] = item.size  # a mask of another size is stretched to it
        return found


@attrs.frozen
class _Base:
    """What all outputs of a stage share, and the captions whose fingerprints are known."""

    start: bytes
    captions: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, object], stage: Stage, components: Mapping[str, str]) -> _Base:
        made_with = {"components": {c: components[c] for c in stage.components}, "reads": stage.reads}
        return cls(hashlib.sha256(_ENCODER.encode({**facts, **made_with}).encode()).digest())

    def with_caption(self, item: Item, caption: str) -> str:
        known = self.captions.get(caption)
        if known is None:
            _check_text(item, caption)
            known = self.captions[caption] = self.with_facts({"caption": caption})
        return known

    def with_facts(self, facts: Mapping[str, object]) -> str:
        return hashlib.sha256(self.start + _ENCODER.encode(facts).encode()).hexdigest()[:32]


def _check_text(item: Item, caption: str) -> None:
    """Refuse a caption that JSON can hold, but no text file: half of a character of two."""
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        message = f"the caption holds half a character at place {error.start + 1}"
        raise DataError("cannot encode", [Issue(shown(item.path), message, "write it anew")]) from error


def files_of(stage: Stage, item: Item) -> list[Path]:
    """Return the files that a stage reads of an item."""
    paths = [item.path] if "pixels" in stage.reads else []
    if "controls" in stage.reads or "originals" in stage.reads:
        paths += [control.path for controls in item.controls.values() for control in controls]
    return paths + ([item.mask] if item.mask is not None and "mask" in stage.reads else [])
