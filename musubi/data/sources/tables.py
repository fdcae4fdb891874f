"""Tables of items on disk, JSONL, CSV and Parquet, row by row; a bad row costs no other."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from musubi.core.errors import ConfigError, DataError, Issue, shown
from musubi.data.sources.row import Row

_LONGEST = 1 << 24
"""Bytes; a longer line is passed over piece by piece instead of being held in memory."""
_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WIDE_TEXT = tuple(mark.decode(errors="surrogateescape") for mark in _WIDE_MARKS)
"""The marks where bytes that are no UTF-8 were let through."""
_WIDE_HINT = "it looks like UTF-16; save it as UTF-8"


def json_rows(path: Path) -> Iterator[Row | Issue]:
    """Yield a row for each line of a JSONL file that is not blank, or what is wrong with it.

    Raises:
        DataError: The file cannot be read, or is not UTF-8 from the start.
    """
    with _readable(path), path.open("rb") as file:
        for number, line in enumerate(_lines(file), start=1):
            if number == 1 and line.startswith(_WIDE_MARKS):
                raise _refused(path, "is not UTF-8 text", _WIDE_HINT)
            if line.strip():
                yield _parsed(line.removeprefix(_MARK) if number == 1 else line, f"{shown(path)}:{number}")


def csv_rows(path: Path) -> Iterator[Row | Issue]:
    """Yield a row for each line of a CSV file below the line of names, or what is wrong with it.

    Raises:
        DataError: The file cannot be read, is UTF-16, or names a column twice.
    """
    with _readable(path), path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = file.readlines()
    if lines and lines[0].startswith(_WIDE_TEXT):
        raise _refused(path, "is not UTF-8 text", _WIDE_HINT)
    names: list[str] | None = None
    for number, fields in _csv_fields(lines):
        place = f"{shown(path)}:{number}"
        if isinstance(fields, csv.Error):
            hint = 'put the whole text in quotes and write those inside twice: "a ""big"" cat"'
            yield Issue(place, f"is not CSV: {fields}", hint)
        elif names is None:
            names = _column_names(path, fields)
        elif len(fields) > len(names):
            hint = "put texts that hold commas in quotes"
            yield Issue(place, f"has {len(fields)} fields, the first line names {len(names)}", hint)
        elif any(field.strip() for field in fields):
            yield Row(values=dict(zip(names, fields, strict=False)), place=place)


def parquet_rows(path: Path) -> Iterator[Row | Issue]:
    """Yield the rows of a Parquet file, its columns of texts and numbers; pictures inside it are left out.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: The file cannot be read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        hint = 'pip install "musubi-trainer[parquet]"'
        raise ConfigError("cannot read Parquet", [Issue("pyarrow", "is not installed", hint)]) from error
    try:
        with _readable(path), path.open("rb") as file:
            table = pyarrow.parquet.ParquetFile(file)
            columns = [column.name for column in table.schema_arrow if _is_plain(column.type)]
            batches = (batch.to_pylist() for batch in table.iter_batches(columns=columns))
            for number, values in enumerate((values for batch in batches for values in batch), start=1):
                yield Row(values=values, place=f"{shown(path)}:{number}")
    except pyarrow.ArrowException as error:
        hint = f"write it again ({str(error).partition(chr(10))[0]})"
        raise _refused(path, "is not a whole Parquet file", hint) from error


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; of one that is too long only so much that this can be told."""
    while line := file.readline(_LONGEST + 1):
        rest = line
        while len(rest) > _LONGEST and not rest.endswith(b"\n"):
            rest = file.readline(_LONGEST + 1)
        yield line


def _parsed(line: bytes, place: str) -> Row | Issue:
    """Return the row of a line of JSON; every way in which it can be none is told."""
    if len(line) > _LONGEST:
        return Issue(place, "is longer than 16 MiB", "write one row a line")
    try:
        values = json.loads(line.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return Issue(place, "is not UTF-8 text", f"byte {error.start + 1} of the line; save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Issue(place, "is not JSON", f"column {error.colno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        return Issue(place, "is not JSON that can be read", str(error))
    if not isinstance(values, dict):
        return Issue(place, "is not a JSON object", "write {...} on one line")
    return Row(values=values, place=place)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; what is given twice would else be lost without a word."""
    twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice")
    return dict(pairs)


def _csv_fields(lines: Sequence[str]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the fields of each record with the number of its first line; after a bad one go on with the next line.

    A quote that is never closed would else swallow the rest of the file.
    """
    start = 0
    while start < len(lines):
        reader = csv.reader(islice(lines, start, None), strict=True)
        line = start
        try:
            for fields in reader:
                yield line + 1, fields
                line = start + reader.line_num
        except csv.Error as error:
            yield line + 1, error
        start = line + 1


def _column_names(path: Path, fields: Sequence[str]) -> list[str]:
    names = [field.strip() for field in fields]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise _refused(path, f"names the column {twice[0]!r} twice", "give each column a name of its own")
    return names


def _is_plain(kind: Any) -> bool:
    """Return whether a column of Parquet holds texts, numbers or lists of these."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_integer, types.is_floating))


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Turn what the system says of a file that cannot be read into a ``DataError``."""
    if path.exists() and not path.is_file():
        raise _refused(path, "is not a file", "give the file itself")
    try:
        yield
    except OSError as error:
        raise _refused(path, error.strerror or str(error), "give an existing file that may be read") from error


def _refused(path: Path, message: str, hint: str) -> DataError:
    return DataError("cannot read rows", [Issue(shown(path), message, hint)])
