"""Specs to plain values and back through cattrs, reporting every problem with its nested path."""

from __future__ import annotations

import json
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs

from musubi.core import kinds
from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import accepted, did_you_mean, failures
from musubi.core.refs import WeightsRef

if TYPE_CHECKING:
    import cattrs

T = TypeVar("T")
_NONE = "none"
"""How None is written inside lists and tables, and where a field's default is something else."""

_Hook = Callable[[Any, Any], Any]


def unstructure(spec: object) -> dict[str, Any]:
    """Return a spec as plain values, strategies tagged with their ``kind``."""
    import cattrs

    converter = cattrs.Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook(Path, lambda path: path.as_posix())
    converter.register_unstructure_hook(WeightsRef, str)
    converter.register_unstructure_hook(type(None), lambda _: _NONE)
    converter.register_unstructure_hook_func(_is_record, lambda value: _fields_of(value, converter))
    result: dict[str, Any] = converter.unstructure(spec)
    return result


def structure(values: object, cls: type[T], *, plugins: Sequence[type] = ()) -> T:
    """Return the ``cls`` that plain values describe; raises ``ConfigError`` with all problems."""
    try:
        result: T = _converter(tuple(plugins)).structure(values, cls)
    except ConfigError as error:
        raise ConfigError(cls.__name__, error.issues) from None
    return result


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML document; raises ``ConfigError`` with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("not valid TOML", [Issue("", str(error))]) from error


def parse_json(text: str) -> dict[str, Any]:
    """Return the object of a JSON document; raises ``ConfigError`` with the line."""
    try:
        return json.loads(text)  # type: ignore[no-any-return]
    except json.JSONDecodeError as error:
        raise ConfigError("not valid JSON", [Issue("", str(error))]) from error


def _is_record(cls: Any) -> bool:
    return (isinstance(cls, type) and attrs.has(cls) and cls is not WeightsRef) or _is_record_alias(cls)


def _is_record_alias(cls: Any) -> bool:
    origin = get_origin(cls)
    return isinstance(origin, type) and attrs.has(origin)


def _fields_of(value: Any, converter: cattrs.Converter) -> dict[str, Any]:
    result: dict[str, Any] = {"kind": type(value).kind} if getattr(type(value), "kind", "") else {}
    for attribute in attrs.fields(type(value)):
        content = getattr(value, attribute.name)
        if content is not None:
            result[attribute.alias] = converter.unstructure(content)
        elif attribute.default is not None:
            result[attribute.alias] = _NONE
    return result


def _converter(plugins: tuple[type, ...]) -> cattrs.Converter:
    import cattrs

    converter = cattrs.Converter(detailed_validation=False)

    def factory(predicate: Callable[[Any], bool], make: Callable[[Any, cattrs.Converter], _Hook]) -> None:
        def hook_for(cls: Any) -> _Hook:
            return make(cls, converter)

        converter.register_structure_hook_factory(predicate, hook_for)

    for primitive in (int, float, bool, str, Path):
        converter.register_structure_hook(primitive, _primitive)
    converter.register_structure_hook(WeightsRef, lambda value, _: WeightsRef(_primitive(value, str)))
    factory(lambda cls: get_origin(cls) is Literal, lambda cls, _: _literal_hook(cls))
    factory(lambda cls: get_origin(cls) is tuple, _tuple_hook)
    factory(lambda cls: get_origin(cls) in {Mapping, dict, typing.get_origin(Mapping[str, int])}, _mapping_hook)
    factory(lambda cls: get_origin(cls) in {Union, types.UnionType}, _union_hook)
    factory(lambda cls: isinstance(cls, TypeVar), lambda cls, c: lambda v, _: c.structure(v, cls.__bound__))
    factory(_is_record, lambda cls, c: _record_hook(cls, c, plugins))
    return converter


def _wrong(value: object, wanted: str) -> ConfigError:
    return ConfigError("", [Issue("", f"must be {wanted}, got {value!r}")])


_WANTED: Mapping[type, tuple[tuple[type, ...], str]] = types.MappingProxyType(
    {
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        bool: ((bool,), "true or false"),
        str: ((str,), "text"),
        Path: ((str, Path), "a path"),
    }
)


def _primitive(value: Any, cls: Any) -> Any:
    accepted, name = _WANTED[cls]
    if not isinstance(value, accepted) or (isinstance(value, bool) and cls is not bool):
        raise _wrong(value, name)
    return cls(value)


def _literal_hook(cls: Any) -> _Hook:
    choices = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        if value not in choices:
            near = did_you_mean(str(value), map(str, choices))
            raise _wrong(value, f"one of {', '.join(map(str, choices))}{near}")
        return value

    return hook


def _tuple_hook(cls: Any, converter: cattrs.Converter) -> _Hook:
    arguments = get_args(cls)
    repeated = len(arguments) == 2 and arguments[1] is Ellipsis

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _wrong(value, "a list")
        if not repeated and len(value) != len(arguments):
            raise _wrong(value, f"a list of {len(arguments)}")
        members = [arguments[0]] * len(value) if repeated else list(arguments)
        pairs = [(f"[{i}]", v, t) for i, (v, t) in enumerate(zip(value, members, strict=True))]
        return tuple(_whole(*_collect(pairs, converter)).values())

    return hook


def _mapping_hook(cls: Any, converter: cattrs.Converter) -> _Hook:
    _, member = get_args(cls)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(value, "a table")
        return _whole(*_collect([(str(k), v, member) for k, v in value.items()], converter))

    return hook


def _union_hook(cls: Any, converter: cattrs.Converter) -> _Hook:
    options = [option for option in get_args(cls) if option is not type(None)]
    nullable = len(options) < len(get_args(cls))

    def hook(value: Any, _: Any) -> Any:
        if nullable and (value is None or (value == _NONE and str not in options)):
            return None
        problems: list[Issue] = []
        for option in options:
            try:
                return converter.structure(value, option)
            except ConfigError as error:
                problems.extend(error.issues)
        deep = [issue for issue in problems if issue.path]
        raise ConfigError("", deep or [Issue("", " or ".join(dict.fromkeys(p.message for p in problems)))])

    return hook


def _record_hook(cls: Any, converter: cattrs.Converter, plugins: tuple[type, ...]) -> _Hook:
    declared: Any = get_origin(cls) or cls

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(value, "a table")
        values = dict(value)
        chosen = _choose(declared, values, plugins)
        return _build(chosen, values, converter)

    return hook


def _choose(declared: Any, values: dict[str, Any], plugins: tuple[type, ...]) -> Any:
    family: str = getattr(declared, "family", "")
    kind = values.pop("kind", None)
    if kind is None:
        if getattr(declared, "kind", "") or not family:
            return declared
        known = ", ".join(kinds.KINDS.get(family, {}))
        raise ConfigError("", [Issue("kind", "is missing", f"one of {known}")])
    if not family:
        raise ConfigError("", [Issue("kind", f"{declared.__name__} has no kinds", "remove this key")])
    if kind == getattr(declared, "kind", ""):
        return declared
    chosen = kinds.find(family, str(kind), plugins)
    if not issubclass(chosen, declared):
        raise ConfigError("", [Issue("kind", f"{kind!r} does not fit here", f"a {declared.__name__} is wanted")])
    return chosen


def _build(cls: Any, values: dict[str, Any], converter: cattrs.Converter) -> Any:
    hints = typing.get_type_hints(cls)
    fields = {a.alias: a for a in attrs.fields(cls) if a.init}
    issues = [Issue(key, f"unknown key{did_you_mean(key, fields)}") for key in values if key not in fields]
    issues += [
        Issue(key, "is missing") for key, a in fields.items() if key not in values and a.default is attrs.NOTHING
    ]
    known = [(key, values[key], accepted(a, hints[a.name])) for key, a in fields.items() if key in values]
    arguments, problems = _collect(known, converter)
    issues += problems
    if issues:  # the object cannot be made, but what can be read is checked, so that one attempt tells everything
        issues += failures(cls, {fields[key].name: value for key, value in arguments.items()})
        raise ConfigError("", issues)
    return cls(**arguments)


def _collect(parts: Iterable[tuple[str, Any, Any]], converter: cattrs.Converter) -> tuple[dict[str, Any], list[Issue]]:
    """Structure every part; return those that are right and the problems of all others."""
    results: dict[str, Any] = {}
    problems: list[Issue] = []
    for path, value, cls in parts:
        try:
            results[path] = converter.structure(value, cls)
        except ConfigError as error:
            problems += [issue.under(path) for issue in error.issues]
    return results, problems


def _whole(results: dict[str, Any], problems: list[Issue]) -> dict[str, Any]:
    if problems:
        raise ConfigError("", problems)
    return results
