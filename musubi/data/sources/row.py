"""A row of a table of items: what its fields stand for, each checked."""

from __future__ import annotations

import difflib
import math
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from musubi.core.errors import DataError, Issue, shown
from musubi.data.sample import kind_of
from musubi.data.sources.source import unread
from musubi.data.sources.tree import holds_pictures

_TYPO = 0.8
"""How alike two field names are, from 0 to 1, if one is a slip for the other."""


@attrs.frozen(kw_only=True)
class Row:
    """The fields of one row; ``place`` is what issues name.

    Every method raises ``DataError`` for a value that does not stand for what is asked.
    """

    values: Mapping[str, object]
    place: str

    def has(self, key: str) -> bool:
        """Return whether a field is given: null, an empty text and not-a-number are not."""
        value = self.values.get(key)
        return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a field of one text or a list of them, stripped at both ends."""
        value = self.values.get(key)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, Sequence) or not all(isinstance(text, str) for text in found):
            raise self.refused(f"{key} must be text or a list of texts", f"got {_brief(value)}")
        texts = tuple(str(text).strip() for text in found)
        if not all(_is_unicode(text) for text in texts):
            raise self.refused(f"{key} is not UTF-8 text", "save the file as UTF-8, without halves of characters")
        return texts

    def weight(self) -> float:
        """Return the field ``weight``: a number of at least 0, by default 1."""
        if not self.has("weight"):
            return 1.0
        value = self.values["weight"]
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number) or number < 0:
            raise self.refused("weight must be a number of at least 0", f"got {_brief(value)}")
        return number

    def media(self, keys: Iterable[str], *, folders: Sequence[Path]) -> tuple[Path, ...]:
        """Return the files that fields name, those that are given."""
        return tuple(self.medium(key, folders=folders) for key in keys if self.has(key))

    def medium(self, key: str, *, folders: Sequence[Path]) -> Path:
        """Return the picture, clip or folder of frames that a field names, seen from the first folder that has it."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.refused(f"{key} must be a path", f"got {_brief(value)}")
        return self.find(key, value, folders=folders)

    def find(self, key: str, name: str, *, folders: Sequence[Path]) -> Path:
        """Return the picture, clip or folder of frames called so; backslashes may stand for slashes."""
        found = next((path for path in _candidates(name, folders) if _mode(path)), None)
        if found is None:
            looked = list(dict.fromkeys("the working directory" if f == Path() else shown(f) for f in folders))
            where = f"neither in {' nor in '.join(looked)}" if len(looked) > 1 else f"not in {''.join(looked)}"
            raise self.refused(f"{key} names no file", f"{_brief(name)} is {where}" if looked else "")
        mode = _mode(found)
        if stat.S_ISDIR(mode):
            if not holds_pictures(found):
                raise self.refused(f"{key} names a folder without pictures", f"{shown(found)} could be no clip")
        elif not stat.S_ISREG(mode):
            raise self.refused(f"{key} names no ordinary file", shown(found))
        elif kind_of(found) is None:
            raise DataError("bad row", [attrs.evolve(unread(found), path=self.place)])
        return found

    def refused(self, message: str, hint: str = "") -> DataError:
        """Return the error of this row."""
        return DataError("bad row", [Issue(self.place, message, hint)])


def typos(rows: Iterable[Row], known: Collection[Collection[str]], others: re.Pattern[str]) -> list[Issue]:
    """Return a note for every field that nobody reads but that is written nearly like one that is missing.

    ``known`` are the fields that are read, in groups of which a row needs one; ``others`` are no slips, either.
    """
    slips: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for slip in _slips(row, known, others):
            slips.setdefault(slip, []).append(row)
    return [
        Issue(found[0].place, f"{key} is not read", f"did you mean {meant!r}? rows with it: {len(found)}")
        for (key, meant), found in slips.items()
    ]


def _slips(row: Row, known: Collection[Collection[str]], others: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    read = {name for names in known for name in names}
    unread = [key for key in row.values if key not in read and not others.fullmatch(key)]
    missing = [name for names in known if not any(name in row.values for name in names) for name in names]
    for key in unread:
        near = difflib.get_close_matches(key, missing, n=1, cutoff=_TYPO)
        if near:
            yield key, near[0]


def _candidates(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    for text in dict.fromkeys([name, name.strip(), name.strip().replace("\\", "/")]):
        yield from (folder / text for folder in folders)


def _mode(path: Path) -> int:
    """Return what kind of file a path leads to; 0 if it leads nowhere or is no path at all."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
