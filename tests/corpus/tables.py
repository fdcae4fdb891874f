"""Tables as Hugging Face's folders have them, in CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import attrs

from musubi.data.dataset import Dataset
from musubi.data.sources.metadata import MetadataFolder
from tests.corpus.case import NEIGHBOURS, Case, Kept, dataset, nothing, said
from tests.corpus.paint import noise, write_picture

_CSV, _PARQUET = "metadata.csv", "metadata.parquet"
_ODD = Kept("odd.png", captions=("an odd one",))


def _folder(root: Path) -> Dataset:
    return dataset(MetadataFolder(root))


def _csv(*rows: Sequence[str]) -> str:
    """Return the table of the neighbours with these rows between them."""
    text = io.StringIO()
    lines = [("file_name", "text"), ("fine.png", said("fine.png")), *rows, ("steady.mp4", said("steady.mp4"))]
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _lines(*lines: str) -> bytes:
    """Return the table of the neighbours with these lines, as they are, between them."""
    head, last = _csv().splitlines()[:2], _csv().splitlines()[2:]
    return "\n".join([*head, *lines, *last, ""]).encode(errors="surrogateescape")


def _written(content: bytes, name: str = _CSV) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        write_picture(root / "odd.png").with_suffix(".txt").unlink()
        (root / name).write_bytes(content)

    return write


_BIG = Kept("odd.png", captions=('a "big",\nodd one',))
_UNLISTED = {"odd.png": "no row names it"}


def _named(name: str, line: str, message: str) -> Case:
    """Return the case of a bad line, the third of the file."""
    reported = {f"{_CSV}:3": message}
    return Case(name=name, write=_written(_lines(line)), read=_folder, reported=reported)


def _kept(name: str, content: bytes, *kept: Kept) -> Case:
    noted = {} if kept else _UNLISTED
    return Case(name=name, write=_written(content), read=_folder, kept=kept, noted=noted)


def _refused(name: str, content: bytes, message: str, *, file: str = _CSV) -> Case:
    return Case(name=name, write=_written(content, file), read=_folder, refused=message)


def _no_parquet() -> str | None:
    return None if find_spec("pyarrow") else "pyarrow is not installed"


def _parquet(root: Path, *, file: object = "odd.png", text: object = "an odd one", **columns: object) -> None:
    """Write a table of the neighbours and an odd row between them; ``columns`` are what its others hold there."""
    import pyarrow
    import pyarrow.parquet

    write_picture(root / "odd.png").with_suffix(".txt").unlink()
    table: dict[str, list[object]] = {
        "file_name": ["fine.png", file, "steady.mp4"],
        "text": [said("fine.png"), text, said("steady.mp4")],
        **{name: [None, value, None] for name, value in columns.items()},
    }
    pyarrow.parquet.write_table(pyarrow.table(table), root / _PARQUET)


def _row(
    name: str,
    *kept: Kept,
    reported: str = "",
    noted: Mapping[str, str] | None = None,
    **values: object,
) -> Case:
    """Return the case of a Parquet table with an odd second row."""
    return Case(
        name=name,
        write=lambda root: _parquet(root, **values),
        read=_folder,
        kept=kept,
        reported={f"{_PARQUET}:2": reported} if reported else {},
        noted=noted or {},
        needs=_no_parquet,
    )


def _listed(root: Path) -> None:
    """Write a table in which every caption is a list."""
    import pyarrow
    import pyarrow.parquet

    names = ["fine.png", "steady.mp4"]
    table = pyarrow.table({"file_name": names, "text": [[said(name), "another"] for name in names]})
    pyarrow.parquet.write_table(table, root / _PARQUET)


def _numbers(root: Path) -> None:
    """Write a table in which captions are numbers."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"file_name": ["fine.png", "steady.mp4"], "text": [1, 2]})
    pyarrow.parquet.write_table(table, root / _PARQUET)


def _cut_parquet(root: Path) -> None:
    _parquet(root)
    whole = (root / _PARQUET).read_bytes()
    (root / _PARQUET).write_bytes(whole[: len(whole) // 2])


def _two_tables(root: Path) -> None:
    for name in (_CSV, "metadata.jsonl"):
        (root / name).write_text(_csv(), encoding="utf-8")


CASES = (
    _named("a line of CSV with too many fields is named", "odd.png,an odd one, a fox", "has 3 fields"),
    _named("a quote that is not closed costs its line alone", 'odd.png,"an odd one', "is not CSV"),
    _named("text behind a quote is named", 'odd.png,"an odd" one', "is not CSV"),
    _named("a line of CSV without a caption is named", "odd.png,", "caption is missing"),
    _named("a line of CSV of one field is named", "odd.png", "caption is missing"),
    _named("a line of CSV without a file is named", ",an odd one", "needs one file_name"),
    _named("a file of a line of CSV that is missing is named", "gone.png,an odd one", "names no file"),
    _named("a line of CSV in Latin-1 is named", "odd.png,m\udcfcde", "not UTF-8"),
    _named("a line of CSV with a NUL in its file is named", "odd\0.png,an odd one", "names no file"),
    _named("a line of CSV with a file out of the folder that is missing is named", "../gone.png,x", "names no file"),
    _kept("commas, quotes and line ends in quotes are caption", _csv(("odd.png", 'a "big",\nodd one')).encode(), _BIG),
    _kept(
        "a CSV with a mark in front is read",
        b"\xef\xbb\xbf" + _csv(("odd.png", "an odd one")).encode(),
        _ODD,
    ),
    _kept(
        "a CSV with line ends of Windows is read", _csv(("odd.png", "an odd one")).replace("\n", "\r\n").encode(), _ODD
    ),
    _kept("blank lines of a CSV do not matter", _lines("", "  ", ",", "odd.png,an odd one", ""), _ODD),
    _kept("a picture that no line of a CSV names is noted", _csv().encode()),
    _refused("a CSV without a column of files is refused", b"image;text\nfine.png;x\n", "no column file_name"),
    _refused(
        "a CSV with semicolons is refused with what it has", b"file_name;text\nfine.png;x\n", "no column file_name"
    ),
    _refused("a CSV with a column twice is refused", b"file_name,text,text\nfine.png,x,y\n", "twice"),
    _refused("a CSV with text and caption is refused", b"file_name,text,caption\nfine.png,x,y\n", "both"),
    _refused("an empty CSV is refused", b"", "no row"),
    _refused("a CSV of a head alone is refused", b"file_name,text\n", "no row"),
    _refused("a CSV in UTF-16 is refused", _csv().encode("utf-16"), "UTF-16"),
    _refused("noise called a CSV is refused", noise(300), "no column file_name"),
    Case(name="a folder without a table is refused", write=nothing, read=_folder, refused="no metadata.csv"),
    Case(name="two tables in a folder are refused", write=_two_tables, read=_folder, refused="keep one"),
    _row("a Parquet table is read", _ODD),
    _row("nothing for a caption in Parquet is named", reported="caption is missing", text=None),
    _row("an empty caption in Parquet is a missing one", reported="caption is missing", text=""),
    _row("nothing for a file in Parquet is named", reported="needs one file_name", file=None),
    _row("a file of Parquet that is missing is named", reported="names no file", file="gone.png"),
    _row("a weight of Parquet counts", Kept("odd.png", captions=("an odd one",), weight=2.0), weight=2.0),
    _row("a weight of Parquet that is not a number counts as none", _ODD, weight=math.nan),
    _row("a weight of Parquet below 0 is named", reported="weight must be", weight=-2.0),
    _row("a control of Parquet that is missing is named", reported="names no file", control_file_name="gone.png"),
    _row("pictures within Parquet do not matter", _ODD, image={"bytes": b"x", "path": "x"}),
    _row(
        "a column of files that nobody reads is noted",
        _ODD,
        noted={_PARQUET: "is not read"},
        depth_file_name="fine.png",
    ),
    Case(
        name="captions of Parquet may be lists",
        write=_listed,
        read=_folder,
        neighbours=[attrs.evolve(kept, captions=(said(kept.path), "another")) for kept in NEIGHBOURS],
        needs=_no_parquet,
    ),
    Case(
        name="captions of Parquet that are numbers are named",
        write=_numbers,
        read=_folder,
        neighbours=(),
        reported={f"{_PARQUET}:1": "text must be text", f"{_PARQUET}:2": "text must be text"},
        needs=_no_parquet,
    ),
    Case(
        name="a Parquet table cut off is refused",
        write=_cut_parquet,
        read=_folder,
        refused="Parquet",
        needs=_no_parquet,
    ),
    Case(
        name="text called Parquet is refused",
        write=lambda root: (root / _PARQUET).write_text(_csv(), encoding="utf-8"),
        read=_folder,
        refused="Parquet",
        needs=_no_parquet,
    ),
)
"""Tables, by the rule of rows."""
