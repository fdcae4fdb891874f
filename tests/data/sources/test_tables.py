from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musubi.core.errors import ConfigError, DataError, Issue
from musubi.data.sources.row import Row
from musubi.data.sources.tables import csv_rows, json_rows, parquet_rows

Reader = Callable[[Path], Iterator[Row | Issue]]


def _told(read: Iterable[Row | Issue]) -> list[object]:
    """Return the values of rows, and of issues the line and the message."""
    return [row.values if isinstance(row, Row) else f"{row.path.rpartition(':')[2]}: {row.message}" for row in read]


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / "table"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_line_of_json_is_a_row_and_blank_lines_are_none(tmp_path: Path) -> None:
    rows = list(json_rows(_file(tmp_path, '\ufeff{"a": 1}\r\n\n  \n{"b": "ü"}')))

    assert _told(rows) == [{"a": 1}, {"b": "ü"}]
    assert [row.place for row in rows if isinstance(row, Row)] == [f"{tmp_path.as_posix()}/table:{n}" for n in (1, 4)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{not json", "is not JSON"),
        (b'{"a": "caf\xe9"}', "is not UTF-8 text"),
        (b'{"a": "nul\x00"}', "is not JSON"),
        (b'{\x00"\x00a\x00"', "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'{"a": 1, "a": 2}', "is not JSON that can be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON that can be read"),
        (b"[" * 200_000, "is not JSON that can be read"),
        (b" " * (1 << 24) + b'{"a": 1}', "is longer than 16 MiB"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_a_bad_line_of_json_is_named_and_costs_no_other(tmp_path: Path, line: bytes, problem: str) -> None:
    read = json_rows(_file(tmp_path, b'{"good": 1}\n' + line + b'\n{"good": 3}\n'))

    assert _told(read) == [{"good": 1}, f"2: {problem}", {"good": 3}]


def test_a_line_of_csv_has_the_fields_of_the_first(tmp_path: Path) -> None:
    content = '\ufefffile_name, text\r\na.png,"a ""big"", red\r\ncat"\r\n\r\nb.png,größer\r\nc.png\r\n,\r\n'

    rows = list(csv_rows(_file(tmp_path, content)))

    assert _told(rows) == [
        {"file_name": "a.png", "text": 'a "big", red\r\ncat'},
        {"file_name": "b.png", "text": "größer"},
        {"file_name": "c.png"},
    ]
    assert [row.place.rpartition(":")[2] for row in rows if isinstance(row, Row)] == ["2", "5", "6"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a.png,red, big", "has 3 fields, the first line names 2"),
        ('a.png,"never closed', "is not CSV: unexpected end of data"),
        ('a.png,"big" cat', "is not CSV: ',' expected after '\"'"),
        (f"a.png,{'x' * 200_000}", "is not CSV: field larger than field limit (131072)"),
    ],
)
def test_a_bad_line_of_csv_is_named_and_costs_no_other(tmp_path: Path, line: str, problem: str) -> None:
    read = csv_rows(_file(tmp_path, f"n,t\n1,one\n{line}\n3,three\n"))

    assert _told(read) == [{"n": "1", "t": "one"}, f"3: {problem}", {"n": "3", "t": "three"}]


def test_text_of_csv_that_is_not_utf8_is_seen_by_whoever_reads_it(tmp_path: Path) -> None:
    (good, bad) = csv_rows(_file(tmp_path, b"t\ngood\ncaf\xe9\n"))

    assert isinstance(good, Row)
    assert good.texts("t") == ("good",)
    assert isinstance(bad, Row)
    with pytest.raises(DataError, match=":3: t is not UTF-8 text"):
        bad.texts("t")


def test_csv_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names the column 't' twice"):
        list(csv_rows(_file(tmp_path, "t,t\n1,2\n")))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(texts, texts).filter(lambda row: any(field.strip() for field in row)), max_size=5))
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    import csv

    with (tmp_path / "table").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *rows])

    assert _told(csv_rows(tmp_path / "table")) == [{"a": a, "b": b} for a, b in rows]


def test_parquet_gives_texts_numbers_and_lists_and_no_pictures(tmp_path: Path) -> None:
    table = pa.table(
        {
            "file_name": pa.array(["a.png", "b.png"]).dictionary_encode(),
            "text": [["one", "two"], None],
            "weight": [0.5, 2.0],
            "image": [{"bytes": b"x"}, {"bytes": b"y"}],
            "raw": [b"x", b"y"],
        }
    )
    pq.write_table(table, tmp_path / "table")

    rows = list(parquet_rows(tmp_path / "table"))

    assert _told(rows) == [
        {"file_name": "a.png", "text": ["one", "two"], "weight": 0.5},
        {"file_name": "b.png", "text": None, "weight": 2.0},
    ]
    assert rows[1].place.endswith("table:2") if isinstance(rows[1], Row) else False


def test_damaged_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"] * 100}), tmp_path / "table")
    whole = (tmp_path / "table").read_bytes()

    for content in (b"", b"PAR1", whole[: len(whole) // 2]):
        with pytest.raises(DataError, match="table: is not a whole Parquet file"):
            list(parquet_rows(_file(tmp_path, content)))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigError, match=r'pip install "musubi-trainer\[parquet\]"'):
        list(parquet_rows(tmp_path / "table"))


@pytest.mark.parametrize("reader", [json_rows, csv_rows, parquet_rows])
def test_a_table_that_is_no_file_is_an_error_that_names_it(tmp_path: Path, reader: Reader) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="pipe: is not a file"):
            list(reader(tmp_path / "pipe"))

    with pytest.raises(DataError, match="nowhere"):
        list(reader(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="is not a file"):
        list(reader(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("rows", [json_rows, csv_rows])
def test_utf16_rows_are_refused_as_a_whole(tmp_path: Path, rows: Reader, encoding: str) -> None:
    content = '\ufeff{"file_name": 1}\n{"file_name": 2}\n'.encode(encoding)

    with pytest.raises(DataError, match=r"is not UTF-8 text \(hint: it looks like UTF-16"):
        list(rows(_file(tmp_path, content)))
