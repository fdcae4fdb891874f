"""Files of prompts: one line for each prompt, or TOML and JSON, of musubi-tuner's form and of our own."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import attrs

from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.fields import did_you_mean
from musubi.inference.prompt_line import PromptLine, option_of
from musubi.inference.request import Request

T = TypeVar("T")
_OURS, _THEIRS, _SUBSET, _NUMBER = "prompts", "prompt", "subset", "enum"
_FORMS = "write [[prompts]] tables of our own, or musubi-tuner's [prompt] with [[prompt.subset]]"


@attrs.frozen
class _Entry:
    """One prompt as it stands in the file: a line of text or a table, and where."""

    place: str
    content: str | Mapping[str, Any]
    ours: bool = False

    def line(self) -> PromptLine:
        """Return what it says."""
        if isinstance(self.content, str):
            return PromptLine.parse(self.content)
        return PromptLine.from_dict({key: value for key, value in self.content.items() if key != _NUMBER})

    def request(self) -> Request:
        """Return what it asks for."""
        if self.ours:
            return Request.from_dict(dict(cast(Mapping[str, Any], self.content)))
        return self.line().request()

    def issue(self, issue: Issue) -> Issue:
        """Return an issue with the place in the file, and on lines under the option's own name."""
        if isinstance(self.content, str):
            return attrs.evolve(issue, path=f"{self.place} {option_of(issue.path)}")
        return issue.under(self.place)


def read_prompts(path: Path | str) -> tuple[Request, ...]:
    """Return what a file asks to draw, in its order.

    A ``.txt`` file has a prompt on each line, with options (``PromptLine.parse``); blank lines are passed over, and
    lines that begin with ``#``. A ``.toml`` or ``.json`` file has ``[[prompts]]``, a list of ``Request`` tables; or it
    is of musubi-tuner's form: ``[prompt]`` with what all have in common and ``[[prompt.subset]]``, or a JSON list of
    lines and tables.

    Args:
        path: UTF-8, of one of these endings.

    Raises:
        ConfigError: The file cannot be read, or has an option that is unknown, malformed or cannot be asked for yet;
            every problem is listed with its line.

    Example:
        >>> from musubi import read_prompts
        >>> read_prompts("prompts.txt")  # doctest: +SKIP
    """
    return _made(Path(path), _Entry.request)


def read_prompt_lines(path: Path | str) -> tuple[PromptLine, ...]:
    """Return what a file of musubi-tuner's forms says, conditions included.

    Raises:
        ConfigError: As ``read_prompts``.
    """
    return _made(Path(path), _Entry.line)


def _made(file: Path, make: Callable[[_Entry], T]) -> tuple[T, ...]:
    """Make something of every entry of a file; report all that fail."""
    made: list[T] = []
    issues: list[Issue] = []
    try:
        for entry in _entries(file):
            try:
                made.append(make(entry))
            except ConfigError as error:
                issues += map(entry.issue, error.issues)
    except ConfigError as error:
        issues += error.issues
    if not made and not issues:
        issues.append(
            Issue("", "holds no prompt", _FORMS if file.suffix.lower() != ".txt" else "write one on each line")
        )
    if issues:
        raise ConfigError(shown(file), issues)
    return tuple(made)


def _entries(file: Path) -> Iterable[_Entry]:
    read = _READERS.get(file.suffix.lower())
    if read is None:
        near = did_you_mean(file.suffix.lower(), _READERS)
        raise ConfigError("", [Issue("", f"must end in {', '.join(_READERS)}{near}")])
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError("", [Issue("", error.strerror or str(error), "give an existing file of prompts")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError("", [Issue("", "is not UTF-8 text", "save the file as UTF-8")]) from error
    return read(text)


def _lines(text: str) -> list[_Entry]:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
    return [_Entry(f"line {number}", line) for number, line in lines if line and not line.startswith("#")]


def _toml(text: str) -> list[_Entry]:
    try:
        return _document(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("", [Issue("", f"is not valid TOML: {error}")]) from error


def _json(text: str) -> list[_Entry]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError("", [Issue("", f"is not valid JSON: {error}")]) from error
    if isinstance(found, list):
        return _listed(cast(list[object], found), "", lines=True)
    if isinstance(found, dict):
        return _document(cast(dict[str, object], found))
    raise ConfigError("", [Issue("", "must be a list of prompts, or an object", _FORMS)])


_READERS: Mapping[str, Callable[[str], list[_Entry]]] = MappingProxyType(
    {".txt": _lines, ".toml": _toml, ".json": _json}
)


def _document(document: Mapping[str, object]) -> list[_Entry]:
    """Return the prompts of a document's tables, in our form or musubi-tuner's."""
    known = (_OURS, _THEIRS)
    issues = [Issue(key, f"unknown key{did_you_mean(key, known)}", _FORMS) for key in document if key not in known]
    if _OURS in document and _THEIRS in document:
        issues.append(Issue(_THEIRS, f"goes not together with {_OURS}", "make two files"))
    if issues:
        raise ConfigError("", issues)
    if _THEIRS in document:
        return _subsets(document[_THEIRS])
    ours = _listed(document.get(_OURS, []), _OURS, lines=False)
    return [attrs.evolve(entry, ours=True) for entry in ours]


def _subsets(found: object) -> list[_Entry]:
    """Return the tables under ``[[prompt.subset]]``, each with what ``[prompt]`` says for all."""
    if not isinstance(found, dict):
        raise ConfigError("", [Issue(_THEIRS, "must be a table", _FORMS)])
    shared = dict(cast(dict[str, object], found))
    entries = _listed(shared.pop(_SUBSET, []), f"{_THEIRS}.{_SUBSET}", lines=False)
    twice = [
        Issue(f"{entry.place}.{key}", f"is in [{_THEIRS}], too", "keep one of them")
        for entry in entries
        for key in entry.content
        if key in shared
    ]
    if twice:
        raise ConfigError("", twice)
    return [attrs.evolve(entry, content={**shared, **cast(Mapping[str, Any], entry.content)}) for entry in entries]


def _listed(found: object, path: str, *, lines: bool) -> list[_Entry]:
    """Return the members of a list: tables and, where they may be, lines."""
    if not isinstance(found, list):
        raise ConfigError("", [Issue(path, "must be a list of tables", f"write [[{path}]] with two brackets")])
    members = [(f"{path}[{i}]", member) for i, member in enumerate(cast(list[object], found))]
    allowed = (dict, str) if lines else (dict,)
    wrong = [
        Issue(place, f"must be a table, got {member!r}") for place, member in members if type(member) not in allowed
    ]
    if wrong:
        raise ConfigError("", wrong)
    return [_Entry(place, cast(Any, member)) for place, member in members]
