"""What a value in a dataset file of the reference may be: of its strict types, and nothing that it breaks on later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from musubi.core.errors import Issue
from musubi.core.fields import count, one_of

Check = Callable[[object], Iterator[Issue]]
"""Yields what is wrong with a value; paths are relative to it, e.g. ``[1]`` for a member of a list."""


def text(value: object) -> Iterator[Issue]:
    """Accept text that is not empty."""
    if not isinstance(value, str) or not value:
        yield Issue("", f"must be text, got {value!r}")


def flag(value: object) -> Iterator[Issue]:
    """Accept true or false."""
    if not isinstance(value, bool):
        yield Issue("", f"must be true or false, got {value!r}")


def whole(value: object) -> Iterator[Issue]:
    """Accept whole numbers."""
    if not isinstance(value, int) or isinstance(value, bool):
        yield Issue("", f"must be a whole number, got {value!r}")


def positive(value: object) -> Iterator[Issue]:
    """Accept whole numbers of at least 1."""
    problem = count(1)(value)
    if problem is not None:
        yield Issue("", problem)


def rate(value: object) -> Iterator[Issue]:
    """Accept decimal numbers above 0; a whole number is none for the reference."""
    if not isinstance(value, float):
        hint = f"write {value}.0" if isinstance(value, int) and not isinstance(value, bool) else ""
        yield Issue("", f"must be a decimal number, got {value!r}", hint)
    elif not (math.isfinite(value) and value > 0):
        yield Issue("", f"must be above 0, got {value!r}")


def size(value: object) -> Iterator[Issue]:
    """Accept a whole number or a [width, height] of two, each at least 1."""
    if isinstance(value, list | tuple):
        sides = cast(Sequence[object], value)
        if len(sides) == 2:
            yield from _members(sides, positive)
            return
    elif not list(positive(value)):
        return
    yield Issue("", f"must be a whole number above 0 or [width, height], got {value!r}")


def list_of(check: Check, *, least: int = 0) -> Check:
    """Accept lists of so many members or more, each of which ``check`` accepts."""

    def accept(value: object) -> Iterator[Issue]:
        if not isinstance(value, list | tuple):
            yield Issue("", f"must be a list, got {value!r}", f"write [{value}]")
            return
        members = cast(Sequence[object], value)
        if len(members) < least:
            yield Issue("", "must not be empty")
        yield from _members(members, check)

    return accept


def choice(*names: str) -> Check:
    """Accept one of some words."""

    def accept(value: object) -> Iterator[Issue]:
        problem = one_of(*names)(value)
        if problem is not None:
            yield Issue("", problem)

    return accept


def only_false(reason: str) -> Check:
    """Accept false; true is refused with a reason."""

    def accept(value: object) -> Iterator[Issue]:
        yield from flag(value)
        if value is True:
            yield Issue("", reason)

    return accept


def _members(values: Sequence[object], check: Check) -> Iterator[Issue]:
    for i, member in enumerate(values):
        yield from (issue.under(f"[{i}]") for issue in check(member))
