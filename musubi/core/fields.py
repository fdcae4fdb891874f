"""Fields of specs with a check beside each; a spec runs all its checks at once and reports all that fail."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, cast

import attrs

from musubi.core.errors import Issue

Check = Callable[[object], str | None]
"""Returns what is wrong with a value, e.g. ``must be positive, got -1``, or None."""

_CHECK = "musubi.check"
_ACCEPTS = "musubi.accepts"


def field(*, check: Check | None = None, **options: Any) -> Any:
    """Declare a spec field; ``check`` runs at construction together with all others of the spec."""
    metadata = dict(options.pop("metadata", {}))
    if check is not None:
        metadata[_CHECK] = check
    return attrs.field(metadata=metadata, **options)


def accepting(kind: Any) -> Mapping[str, Any]:
    """Return the metadata of a field whose converter takes more than its declared type: what a file may give it."""
    return {_ACCEPTS: kind}


def accepted(attribute: attrs.Attribute[Any], declared: Any) -> Any:
    """Return the type that a file may give a field in, by default the declared one."""
    return attribute.metadata.get(_ACCEPTS, declared)


def failures(cls: type[attrs.AttrsInstance], values: Mapping[str, object]) -> list[Issue]:
    """Run the check of every field that has a value, by field name, and return all problems."""
    issues: list[Issue] = []
    for attribute in attrs.fields(cls):
        check: Check | None = attribute.metadata.get(_CHECK)
        if check is None or attribute.name not in values:
            continue
        problem = check(values[attribute.name])
        if problem is not None:
            issues.append(Issue(attribute.alias, problem))
    return issues


def at_least(minimum: float) -> Check:
    """Accept numbers not below ``minimum``."""

    def check(value: object) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool) and value >= minimum
        return None if good else f"must be a number of at least {minimum:g}, got {value!r}"

    return check


def count(minimum: int = 1) -> Check:
    """Accept whole numbers not below ``minimum``."""

    def check(value: object) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= minimum
        return None if good else f"must be a whole number of at least {minimum}, got {value!r}"

    return check


def positive(value: object) -> str | None:
    """Accept numbers above zero."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return None if good else f"must be a number above 0, got {value!r}"


def share(value: object) -> str | None:
    """Accept numbers from 0 to 1."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return None if good else f"must be a number from 0 to 1, got {value!r}"


def one_of(*choices: object) -> Check:
    """Accept one of the listed values; the message names the nearest."""

    def check(value: object) -> str | None:
        if value in choices:
            return None
        near = did_you_mean(str(value), map(str, choices))
        return f"must be one of {', '.join(map(str, choices))}, got {value!r}{near}"

    return check


def optional(check: Check) -> Check:
    """Accept None, or what ``check`` accepts."""
    return lambda value: None if value is None else check(value)


def each(check: Check) -> Check:
    """Accept a tuple whose every member passes ``check``."""

    def check_all(value: object) -> str | None:
        if not isinstance(value, Collection) or isinstance(value, str):
            return f"must be a list, got {value!r}"
        return next((f"[{i}] {problem}" for i, v in enumerate(value) if (problem := check(v)) is not None), None)

    return check_all


def as_path(value: PathLike[str] | str) -> Path:
    """Return a path; what cannot be one is left as it is, for the check of its type to name the field."""
    try:
        return Path(value)
    except TypeError:
        return cast(Path, value)


def did_you_mean(word: str, known: Any) -> str:
    """Return ``; did you mean 'x'?`` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
