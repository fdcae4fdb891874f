"""Folders with a table of their files, as Hugging Face's ``imagefolder`` and ``videofolder`` have it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import attrs

from musubi.core.errors import DataError, Issue, shown
from musubi.core.fields import as_path, did_you_mean, field, optional
from musubi.data.sample import Record, kind_of
from musubi.data.sources.row import Row, typos
from musubi.data.sources.source import Listing, Source
from musubi.data.sources.tables import csv_rows, json_rows, parquet_rows
from musubi.data.sources.tree import walk

_READERS: Mapping[str, Callable[[Path], Iterator[Row | Issue]]] = MappingProxyType(
    {"metadata.csv": csv_rows, "metadata.jsonl": json_rows, "metadata.parquet": parquet_rows}
)
_MEDIA = ("file_name", "image_file_name", "video_file_name")
_CAPTIONS = ("text", "caption")
_CONTROL = re.compile(r"control(?:_(?P<number>[0-9]{1,9}))?_file_name")
_FILE = re.compile(r"(?:.+_)?file_names?")
_FILES = (*_MEDIA, "control_file_names", "mask_file_name")
_KNOWN = (_CAPTIONS, ("weight",))


@attrs.frozen
class MetadataFolder(Source):
    """Take the files that ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet`` in a folder lists.

    The column ``file_name`` names pictures, clips or folders of frames, relative to the table; ``control_file_name``
    (or ``control_0_file_name`` ..., or a list ``control_file_names``) and ``mask_file_name`` go with them, ``weight``
    multiplies their loss. Captions are in ``text`` or ``caption``; of a list of captions one is drawn each time.
    Pictures and clips that no row names are noted.

    Args:
        path: The folder that holds the table.
        caption_column: The column of captions, if it is called otherwise.
        recursive: Whether tables in subfolders count, too, as they do for the ``datasets`` library.

    Example:
        >>> from musubi import MetadataFolder
        >>> MetadataFolder("clips", caption_column="prompt").recursive
        False
    """

    kind: ClassVar[str] = "metadata"

    path: Path = attrs.field(converter=as_path)
    caption_column: str | None = field(
        default=None, kw_only=True, check=optional(lambda v: None if v else "must not be empty; None takes the usual")
    )
    recursive: bool = attrs.field(default=False, kw_only=True)

    def read(self) -> Listing:
        tables = self._tables()
        listings = [self._read_table(table) for table in tables]
        issues = [issue for listing in listings for issue in listing.issues]
        records = [record for listing in listings for record in listing.records]
        if not records and not issues:
            raise DataError("nothing to train on", [Issue(shown(self.path), "its tables have no row", "add rows")])
        notes = [note for listing in listings for note in listing.notes]
        return Listing(records=tuple(records), issues=tuple(issues), notes=(*notes, *_unlisted(records)))

    def _tables(self) -> list[Path]:
        """Return the table of each folder; two in one folder are an error: which is true?"""
        tree = walk(self.path, depth=None if self.recursive else 0)
        found = {folder: [path for path in files if path.name in _READERS] for folder, files in tree.folders.items()}
        twice = [paths for paths in found.values() if len(paths) > 1]
        if twice:
            names = " and ".join(path.name for path in twice[0])
            raise DataError("which table?", [Issue(shown(twice[0][0].parent), f"holds {names}", "keep one of them")])
        tables = sorted((path for paths in found.values() for path in paths), key=Path.as_posix)
        if not tables:
            hint = "give the folder that holds the table; for tables in subfolders set recursive=True"
            raise DataError("no table", [Issue(shown(self.path), f"holds no {', '.join(_READERS)}", hint)])
        return tables

    def _read_table(self, table: Path) -> Listing:
        read = list(_READERS[table.name](table))
        rows = [row for row in read if isinstance(row, Row)]
        issues = [row for row in read if isinstance(row, Issue)]
        columns = list(dict.fromkeys(name for row in rows for name in row.values))
        if rows:
            self._check_columns(table, columns)
        records: list[Record] = []
        for row in rows:
            try:
                records.append(self._record(row, table.parent, columns))
            except DataError as error:
                issues += error.issues
        notes = [*typos(rows, _KNOWN, _FILE), *_unread_columns(table, columns)]
        return Listing(records=tuple(records), issues=tuple(issues), notes=tuple(notes))

    def _check_columns(self, table: Path, columns: Sequence[str]) -> None:
        """Refuse a table that lacks what every row needs."""
        listed = f"it has {', '.join(columns)}"
        wrong: list[Issue] = []
        if not any(name in columns for name in _MEDIA):
            near = did_you_mean(_MEDIA[0], columns).replace("did you mean", "is it")
            wrong.append(Issue(shown(table), f"has no column file_name{near}", f"{listed}; commas separate columns"))
        if self.caption_column is not None and self.caption_column not in columns:
            near = did_you_mean(self.caption_column, columns)
            wrong.append(Issue(shown(table), f"has no column {self.caption_column}{near}", listed))
        if self.caption_column is None and all(name in columns for name in _CAPTIONS):
            wrong.append(Issue(shown(table), "has both a column text and a column caption", "set caption_column"))
        if wrong:
            raise DataError("cannot read table", wrong)

    def _record(self, row: Row, folder: Path, columns: Sequence[str]) -> Record:
        folders = (folder,)
        controls = _controls(row, folders)
        return Record(
            path=row.medium(_media_column(row), folders=folders),
            captions=self._captions(row),
            place=row.place,
            remedy=f"fill in {self.caption_column or ' or '.join(_CAPTIONS)}; the columns are {', '.join(columns)}",
            controls={"control": controls} if controls else {},
            mask=row.medium("mask_file_name", folders=folders) if row.has("mask_file_name") else None,
            weight=row.weight(),
        )

    def _captions(self, row: Row) -> tuple[str, ...]:
        names = _CAPTIONS if self.caption_column is None else (self.caption_column,)
        return next((row.texts(name) for name in names if row.has(name)), ())


def _media_column(row: Row) -> str:
    given = [name for name in _MEDIA if row.has(name)]
    if len(given) != 1:
        raise row.refused("needs one file_name", f"it has {', '.join(given)}" if given else "fill it in")
    return given[0]


def _controls(row: Row, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the conditioning files of a row in the order of their numbers, then those of the list."""
    numbers = {name: found["number"] for name in row.values if (found := _CONTROL.fullmatch(name))}
    columns = sorted(numbers, key=lambda name: int(numbers[name] or 0))
    listed = row.texts("control_file_names") if row.has("control_file_names") else ()
    more = (row.find("control_file_names", name, folders=folders) for name in listed)
    return (*row.media(columns, folders=folders), *more)


def _unread_columns(table: Path, columns: Iterable[str]) -> Iterator[Issue]:
    """Yield a note for each column of files that nobody reads."""
    for name in columns:
        if _FILE.fullmatch(name) and name not in _FILES and not _CONTROL.fullmatch(name):
            hint = "call it control_file_name or mask_file_name to train with it"
            yield Issue(shown(table), f"column {name} is not read", hint)


def _unlisted(records: Sequence[Record]) -> Iterator[Issue]:
    """Yield a note for each picture or clip that lies beside listed ones but is in no row."""
    used = [record.path for record in records]
    used += [path for record in records for paths in record.controls.values() for path in paths]
    used += [record.mask for record in records if record.mask is not None]
    known = {os.path.realpath(path) for path in used}
    for folder in sorted({record.path.parent for record in records}):
        for path in walk(folder).folders[folder]:
            if kind_of(path) is not None and os.path.realpath(path) not in known:
                yield Issue(shown(path), "no row names it", "add a row for it, or remove it")
