"""Classes that the user's own Python names."""

from __future__ import annotations

import importlib
import keyword
from typing import Any

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import did_you_mean

Value = int | float | bool | str | tuple[int | float, ...]
"""What an argument of a named class may be, so that it can be written to a file."""


def name_of(value: object) -> object:
    """Return the dotted name of a class; anything else is left as it is, for the field's check."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value


def dotted(value: object) -> str | None:
    """Say what is wrong with a class's name, None if nothing."""
    if isinstance(value, str) and "<locals>" in value:
        return f"must be a class of a module, not one inside a function, got {value!r}"
    good = isinstance(value, str) and all(p.isidentifier() and not keyword.iskeyword(p) for p in value.split("."))
    return (
        None if good else f'must be a class, or the name of one ("Class" of torch, or "package.Class"), got {value!r}'
    )


def plain(value: object) -> str | None:
    """Say what is wrong with a mapping of arguments, None if nothing."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return f"must be names with values, got {value!r}"
    wrong = [name for name, content in value.items() if not _is_plain(content)]
    return (
        f"{wrong[0]} must be a number, text, True, False or a tuple of numbers, got {value[wrong[0]]!r}"
        if wrong
        else None
    )


def as_arguments(value: object) -> object:
    """Return arguments with lists as tuples, as they are in a spec."""
    if not isinstance(value, dict):
        return value
    return {name: tuple(content) if isinstance(content, list) else content for name, content in value.items()}


def found(name: str, home: str) -> Any:
    """Return a class by its dotted name, or by its name in the module ``home``.

    Raises:
        ConfigError: There is no such class.
    """
    module, _, leaf = name.rpartition(".")
    try:
        place = importlib.import_module(module or home)
        kind = getattr(place, leaf, None)  # some packages import what is asked for only now
    except ImportError as error:
        hint = f"pip install what has {(module or home).partition('.')[0]}, or correct the name"
        raise ConfigError("custom class", [Issue("name", f"{name} cannot be imported: {error}", hint)]) from error
    if not isinstance(kind, type):
        near = did_you_mean(leaf, [known for known in dir(place) if known[:1].isupper()])  # asking would import them
        raise ConfigError("custom class", [Issue("name", f"{module or home} has no class {leaf}{near}")])
    return kind


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(member, int | float) for member in value)
    return isinstance(value, int | float | str)
