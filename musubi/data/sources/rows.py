"""Files of rows: one item a line, as JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import attrs

from musubi.core.errors import DataError, Issue, shown
from musubi.core.fields import as_path, did_you_mean
from musubi.data.sample import Record
from musubi.data.sources.row import Row, typos
from musubi.data.sources.source import Listing, Source
from musubi.data.sources.tables import json_rows

_MEDIA = ("image_path", "video_path")
_CAPTIONS = ("caption", "captions")
_KNOWN = (_MEDIA, _CAPTIONS, ("control_path",), ("mask_path",), ("weight",))
_CONTROL = re.compile(r"control_path(_.*)?", re.DOTALL)


@attrs.frozen
class Jsonl(Source):
    """Take one item from each line of a JSONL file: ``{"image_path": "a.png", "caption": "a cat"}``, or ``video_path``.

    ``video_path`` may name a folder of frames. A caption may be a list of captions, one of which is drawn each time.
    ``control_path`` or ``control_path_0``, ``control_path_1`` ... are conditioning files in the order of their numbers,
    ``mask_path`` tells where the loss counts and ``weight`` how much. Paths are relative to the file's folder, or else,
    as the reference has it, to the working directory. Blank lines are passed over; a bad row is an issue that names its
    line, and the others are taken.

    Example:
        >>> from musubi import Jsonl
        >>> Jsonl("clips/rows.jsonl").path.name
        'rows.jsonl'
    """

    kind: ClassVar[str] = "jsonl"

    path: Path = attrs.field(converter=as_path)

    def read(self) -> Listing:
        records: list[Record] = []
        issues: list[Issue] = []
        rows: list[Row] = []
        for row in json_rows(self.path):
            if isinstance(row, Issue):
                issues.append(row)
                continue
            rows.append(row)
            try:
                records.append(self._record(row))
            except DataError as error:
                issues += error.issues
        if not rows and not issues:
            hint = 'write one row a line: {"image_path": "a.png", "caption": "..."}'
            raise DataError("nothing to train on", [Issue(shown(self.path), "has no row", hint)])
        return Listing(records=tuple(records), issues=tuple(issues), notes=tuple(typos(rows, _KNOWN, _CONTROL)))

    def _record(self, row: Row) -> Record:
        folders = (self.path.parent, Path())
        controls = row.media(_control_keys(row), folders=folders)
        return Record(
            path=row.medium(_media_key(row), folders=folders),
            captions=_captions(row),
            place=row.place,
            remedy='add "caption": "..." to the row',
            controls={"control": controls} if controls else {},
            mask=row.medium("mask_path", folders=folders) if row.has("mask_path") else None,
            weight=row.weight(),
        )


def _media_key(row: Row) -> str:
    given = [key for key in _MEDIA if key in row.values]
    if len(given) != 1:
        near = "" if given else did_you_mean(next(iter(row.values), ""), _MEDIA)
        has = ", ".join(row.values) or "no key"
        raise row.refused(f"needs either image_path or video_path{near}", f"it has {has}")
    return given[0]


def _captions(row: Row) -> tuple[str, ...]:
    """Return the captions of a row; none where it has no such field, or null."""
    given = [key for key in _CAPTIONS if row.values.get(key) is not None]
    if len(given) > 1:
        raise row.refused("has both caption and captions", "keep one; either may be a list")
    return row.texts(given[0]) if given else ()


def _control_keys(row: Row) -> list[str]:
    """Return the fields of conditioning files in the order of their last numbers; ``control_path`` is number 0."""
    numbers = {key: _number(row, key) for key in row.values if _CONTROL.fullmatch(key) and row.has(key)}
    if "control_path" in numbers:
        numbers.pop("control_path_0", None)
    return sorted(numbers, key=lambda key: numbers[key])


def _number(row: Row, key: str) -> int:
    try:
        return 0 if key == "control_path" else int(key.rpartition("_")[2])
    except ValueError:
        raise row.refused(f"{key} is not a control", "number controls: control_path_0, control_path_1, ...") from None
