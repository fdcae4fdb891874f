"""One table per architecture between a checkpoint's original module names and the library's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

import attrs


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Rename:
    """``original`` is called ``library[0]`` in the library; several names mean its rows are split among them in order.

    ``{}`` stands for one path component that is carried over:
    ``Rename("blocks.{}.ffn.0", "blocks.{}.ffn.net.0.proj")``.
    A rule covers the module or parameter itself and everything below it (``.weight``, ``.bias``).
    """

    original: str
    library: tuple[str, ...] = attrs.field(converter=_names)


@attrs.frozen
class LibraryName:
    """Where an original name went: ``part`` of ``parts`` consecutive row blocks of the original tensor."""

    name: str
    part: int = 0
    parts: int = 1


def _rules(value: Iterable[Rename]) -> tuple[Rename, ...]:
    return tuple(value)


@attrs.frozen
class KeyMap:
    """Translate dotted names both ways by an ordered list of rules; names no rule covers stay as they are."""

    rules: tuple[Rename, ...] = attrs.field(converter=_rules)

    def to_library(self, original: str) -> tuple[LibraryName, ...]:
        """Return the library names that hold this original name, in row order."""
        for pattern, rule in self._forward:
            match = pattern.fullmatch(original)
            if match:
                *parts, rest = match.groups()
                names = [_fill(name, parts) + (rest or "") for name in rule.library]
                return tuple(LibraryName(name, i, len(names)) for i, name in enumerate(names))
        return (LibraryName(original),)

    def to_original(self, library: str) -> tuple[str, LibraryName]:
        """Return the original name of a library name, and which rows of the original it is."""
        for pattern, rule, part in self._backward:
            match = pattern.fullmatch(library)
            if match:
                *parts, rest = match.groups()
                return _fill(rule.original, parts) + (rest or ""), LibraryName(library, part, len(rule.library))
        return library, LibraryName(library)

    def groups(self, library_modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Gather library modules by original module: ``{"blocks.0.self_attn.q": ("blocks.0.attn1.to_q",), ...}``.

        Originals come in the order in which their first member is met; members in row order. An original of which
        some members are missing is left out.
        """
        present = list(library_modules)
        known = set(present)
        found: dict[str, tuple[str, ...]] = {}
        for name in present:
            original, _ = self.to_original(name)
            members = tuple(part.name for part in self.to_library(original))
            if original not in found and known.issuperset(members):
                found[original] = members
        return found

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], Rename]]:
        return [(_pattern(rule.original), rule) for rule in self.rules]

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], Rename, int]]:
        return [(_pattern(name), rule, i) for rule in self.rules for i, name in enumerate(rule.library)]


class OriginalOrder(KeyMap):
    """A table whose rules stand in the order of the original's modules, and which gathers modules in that order.

    Adapters are drawn one after the other from one seed. Where the library orders modules otherwise, the same seed
    would give other weights in its order than in the original's.
    """

    def groups(self, library_modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Gather library modules by original module: by lists of blocks, in these by number, then by rule.

        Modules that no rule covers come last.
        """
        found = super().groups(library_modules)
        return dict(sorted(found.items(), key=lambda item: self._place(item[0])))

    def _place(self, original: str) -> tuple[int, int, int]:
        """Return where the list of blocks begins among the rules, the block's number, and its rule."""
        lists = [rule.original.partition("{}")[0] for rule in self.rules]
        for index, (pattern, _) in enumerate(self._forward):
            match = pattern.fullmatch(original)
            if match:
                return lists.index(lists[index]), int(match[1]) if pattern.groups > 1 else 0, index
        return len(lists), 0, 0


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{\}", r"([^.]+)") + r"(\..+)?")


def _fill(name: str, parts: Iterable[str | None]) -> str:
    for part in parts:
        name = name.replace("{}", part or "", 1)
    return name
