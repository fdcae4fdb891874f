"""Whether a value is what its field declares: for those who do not run a type checker, notebooks above all."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs

from musubi.core.errors import Issue

_WORDS: Mapping[object, str] = types.MappingProxyType(
    {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path", type(None): "None"}
)


def mistaken(cls: type[attrs.AttrsInstance], values: Mapping[str, object]) -> list[Issue]:
    """Return an issue for each value, by field name, that is not of its field's declared type.

    Hints that cannot be resolved, as those a plugin imports only for type checkers, are not looked at.
    """
    hints = _hints(cls)
    return [issue for name, value in values.items() if name in hints for issue in _mistakes(name, value, hints[name])]


def _mistakes(path: str, value: object, hint: Any) -> Iterator[Issue]:
    """Yield what is wrong with a value, or, of a list, with each member."""
    arguments = get_args(hint)
    if isinstance(value, tuple) and arguments[1:] == (Ellipsis,):
        for i, member in enumerate(cast(tuple[object, ...], value)):
            yield from _mistakes(f"{path}[{i}]", member, arguments[0])
    elif not fits(value, hint):
        yield Issue(path, f"must be {_words(hint)}, got {_shown(value)}")


def fits(value: object, hint: Any) -> bool:
    """Return whether a value is of a declared type; a form of hint that is not known fits everything."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar):
        return hint.__bound__ is None or fits(value, hint.__bound__)
    if origin in {Union, types.UnionType}:
        return any(fits(value, option) for option in arguments)
    if origin is Literal:  # which of them it is, the field's own check says
        return isinstance(value, tuple({type(argument) for argument in arguments}))
    if origin is tuple:
        return isinstance(value, tuple) and _members_fit(value, arguments)
    if hint in {int, float}:
        return isinstance(value, hint | int) and not isinstance(value, bool)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _members_fit(value: tuple[object, ...], arguments: tuple[Any, ...]) -> bool:
    if arguments[1:] == (Ellipsis,):
        return all(fits(member, arguments[0]) for member in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, AttributeError):
        return {}


def _words(hint: Any) -> str:
    """Say a type as a message does: ``two whole numbers``, ``a Network``, ``a number, a Guidance or None``."""
    arguments = get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if isinstance(hint, TypeVar):
        return _words(hint.__bound__)
    if get_origin(hint) in {Union, types.UnionType}:
        *others, last = map(_words, arguments)
        return f"{', '.join(others)} or {last}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if get_origin(hint) is tuple and arguments[1:] != (Ellipsis,):
        return f"({', '.join(map(_words, arguments))})"
    if get_origin(hint) is tuple:
        return f"a tuple, each member {_words(arguments[0])}"
    name: str = getattr(hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _shown(value: object) -> str:
    """Show a value briefly; a class where an object is wanted is the commonest slip."""
    if isinstance(value, type):
        return f"the class {value.__name__}; write {value.__name__}(...)"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
