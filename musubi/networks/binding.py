"""Adapters under a model's original module names, however a file spells them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError
from musubi.core.fields import did_you_mean
from musubi.keymap import KeyMap
from musubi.networks.fused import cut, cuttable, join, part_rows
from musubi.networks.keys import flat
from musubi.networks.weights import AdapterWeights, LoRAWeights

_SHOWN = 8


@attrs.frozen
class Place:
    """An original module, and which of its parts a name means: None for the whole, else its number."""

    original: str
    part: int | None = None


@attrs.define(frozen=True, slots=False)
class ModelNames:
    """What a model calls its modules.

    ``originals`` are the names in its checkpoint, in its order; with ``keymap``, diffusers' names are understood, too.
    ``part_rows``, or else ``sizes`` (inputs, outputs), where they are known, tell how large the parts of fused modules
    are; ``swapped`` are patterns of originals whose halves of rows diffusers has the other way round.
    """

    originals: tuple[str, ...]
    keymap: KeyMap = attrs.field(factory=lambda: KeyMap(()))
    sizes: Mapping[str, tuple[int, int]] = attrs.field(factory=dict)
    part_rows: Mapping[str, Sequence[int]] = attrs.field(factory=dict)
    swapped: tuple[str, ...] = ()

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where names belong, by the names with underscores for dots."""
        table = {flat(name): Place(name) for name in self.originals}
        for name in self.originals:
            parts = self.keymap.to_library(name)
            for part in parts:
                table.setdefault(flat(part.name), Place(name, part.part))
        return table

    def parts(self, original: str) -> tuple[str, ...]:
        """Return the names that diffusers has for a module, in the order of its rows."""
        return tuple(part.name for part in self.keymap.to_library(original))

    def rows(self, original: str, width: int, height: int) -> tuple[int, ...]:
        """Return how many rows each part of a module has, given its inputs and outputs."""
        return tuple(self.part_rows.get(original) or part_rows(width, height, len(self.parts(original))))

    def is_swapped(self, original: str) -> bool:
        """Whether diffusers has the two halves of a module's rows the other way round."""
        return any(re.fullmatch(pattern, original) for pattern in self.swapped)


def bound(modules: Mapping[str, AdapterWeights], names: ModelNames) -> dict[str, AdapterWeights]:
    """Return the adapters by original name in the model's order; those of a fused module's parts are put together.

    Raises:
        WeightsError: The model lacks modules, or two adapters are for the same one; the nearest names are given.
    """
    gathered: dict[str, dict[int | None, AdapterWeights]] = {}
    issues = [*_strangers(modules, names)]
    for name, weights in modules.items():
        place = names.places.get(flat(name))
        if place is None:
            continue
        members = gathered.setdefault(place.original, {})
        if place.part in members or (members and None in {place.part, *members}):
            issues.append(Issue(name, f"is a second adapter for {place.original}"))
        members[place.part] = weights
    if issues:
        raise WeightsError("the LoRA does not fit this model", issues)
    return {name: _whole(name, gathered[name], names) for name in names.originals if name in gathered}


def in_parts(modules: Mapping[str, AdapterWeights], names: ModelNames) -> dict[str, AdapterWeights]:
    """Return the adapters by diffusers' names, those of fused modules cut into their parts: the inverse of ``bound``.

    Raises:
        WeightsError: An adapter cannot be cut.
    """
    result: dict[str, AdapterWeights] = {}
    issues: list[Issue] = []
    for original, weights in modules.items():
        members = names.parts(original)
        ready = swapped_halves(weights) if names.is_swapped(original) else weights
        if len(members) == 1:
            result[members[0]] = ready
            continue
        try:
            height, width = cuttable(ready, len(members)).shape[:2]
            result |= zip(members, cut(ready, names.rows(original, width, height)), strict=True)
        except WeightsError as error:
            issues.extend(issue.under(original) for issue in error.issues)
    if issues:
        raise WeightsError("cannot name the LoRA's modules as diffusers does", issues)
    return result


def swapped_halves(weights: AdapterWeights) -> AdapterWeights:
    """Return an adapter whose delta has its two halves of rows exchanged; only a LoRA can be."""
    if not isinstance(weights, LoRAWeights):
        return weights
    magnitude = None if weights.magnitude is None else _exchanged(weights.magnitude)
    return attrs.evolve(weights, up=_exchanged(weights.up), magnitude=magnitude)


def _exchanged(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


def _whole(original: str, members: Mapping[int | None, AdapterWeights], names: ModelNames) -> AdapterWeights:
    if None in members:
        return members[None]
    parts = {index: weights for index, weights in members.items() if index is not None}
    count = len(names.parts(original))
    if count == 1:
        return swapped_halves(parts[0]) if names.is_swapped(original) else parts[0]
    try:
        return join(parts, _rows(original, parts, names, count))
    except WeightsError as error:
        raise WeightsError(error.title, [issue.under(original) for issue in error.issues]) from error


def _rows(original: str, members: Mapping[int, AdapterWeights], names: ModelNames, count: int) -> tuple[int, ...]:
    """Return the parts' rows: the adapters' own, and for parts without one, what the module's size leaves."""
    if len(members) == count:
        return tuple(members[index].shape[0] for index in range(count))
    if original in names.part_rows:
        return tuple(names.part_rows[original])
    if original not in names.sizes:
        problem = f"the file has {len(members)} of its {count} parts, and its size is not known"
        hint = "bind the file to its architecture"
        raise WeightsError("the LoRA does not fit this model", [Issue("", problem, hint)])
    width, height = names.sizes[original]
    return names.rows(original, width, height)


def _strangers(modules: Mapping[str, AdapterWeights], names: ModelNames) -> Iterable[Issue]:
    unknown = [name for name in modules if flat(name) not in names.places]
    for name in unknown[:_SHOWN]:
        yield Issue(name, f"the model has no such module{did_you_mean(name, names.originals)}")
    if len(unknown) > _SHOWN:
        hint = "is it a LoRA for another architecture or variant?"
        yield Issue("", f"{len(unknown)} of the file's {len(modules)} modules are unknown", hint)
