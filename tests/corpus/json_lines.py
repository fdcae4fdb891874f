"""Files of rows in JSON, most of which are no good."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from musubi.data.dataset import Dataset
from musubi.data.sources.rows import Jsonl
from tests.corpus.case import Case, Kept, dataset, nothing, said
from tests.corpus.paint import noise, write_picture

_TABLE = "rows.jsonl"
_PLACE = f"{_TABLE}:2"
"""Where the odd row is: between the neighbours."""

_FINE = json.dumps({"image_path": "fine.png", "caption": said("fine.png")}).encode()
_STEADY = json.dumps({"video_path": "steady.mp4", "caption": said("steady.mp4")}).encode()


def rows(root: Path) -> Dataset:
    """Return the table of the case's folder."""
    return dataset(Jsonl(root / _TABLE))


def _between(content: bytes) -> Callable[[Path], None]:
    """Return what writes an odd picture and a table of three rows, the second of which is this."""

    def write(root: Path) -> None:
        write_picture(root / "odd.png").with_suffix(".txt").unlink()
        filled = content.replace(b"ROOT", json.dumps(root.as_posix())[1:-1].encode())
        (root / _TABLE).write_bytes(_FINE + b"\n" + filled + b"\n" + _STEADY + b"\n")

    return write


def _named(name: str, content: bytes, message: str) -> Case:
    return Case(name=name, write=_between(content), read=rows, reported={_PLACE: message})


def _kept(
    name: str,
    row: Mapping[str, object] | bytes,
    *kept: Kept,
    noted: Mapping[str, str] | None = None,
) -> Case:
    content = row if isinstance(row, bytes) else json.dumps(row).encode()
    return Case(name=name, write=_between(content), read=rows, kept=kept, noted=noted or {})


def _row(**values: object) -> bytes:
    return json.dumps({"image_path": "odd.png", "caption": "an odd one"} | values).encode()


def _whole(name: str, content: bytes, *, refused: str = "") -> Case:
    """Return the case of a table as a whole."""
    return Case(name=name, write=lambda root: (root / _TABLE).write_bytes(content), read=rows, refused=refused)


_ODD = Kept("odd.png", captions=("an odd one",))
_ROUND = _ODD
_EMPTY = Kept("odd.png", captions=("",))
_TWO = Kept("odd.png", captions=("an odd one", "a fox"))
_SELF = Kept("odd.png", captions=("an odd one",), controls=("odd.png",))
_DEEP = b'{"image_path": "odd.png", "caption": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

CASES = (
    _named(
        "a row that is no JSON is named by its line",
        b'{"image_path": "odd.png", "caption": "an odd',
        "is not JSON",
    ),
    _named("a row with a comma too many is named", b'{"image_path": "odd.png", "caption": "x",}', "is not JSON"),
    _named("a row in single quotes is named", b"{'image_path': 'odd.png', 'caption': 'x'}", "is not JSON"),
    _named("two rows on a line are named", _row() + _row(), "is not JSON"),
    _named("a row with a comment is named", _row() + b" # odd", "is not JSON"),
    _named("a list for a row is named", b'["odd.png", "an odd one"]', "not a JSON object"),
    _named("a number for a row is named", b"7", "not a JSON object"),
    _named("null for a row is named", b"null", "not a JSON object"),
    _named("lists in lists without end are named", _DEEP, "is not JSON"),
    _named("a row of noise is named", b'{"image_path": "' + noise(40).replace(b"\n", b"") + b'"}', "is not UTF-8"),
    _named(
        "a row in Latin-1 is named",
        '{"image_path": "odd.png", "caption": "müde"}'.encode("latin-1"),
        "is not UTF-8",
    ),
    _named("a row with a NUL is named", b'{"image_path": "odd.png",\0"caption": "x"}', "is not JSON"),
    _named(
        "a row of 17 MiB is named",
        b'{"image_path": "odd.png", "caption": "' + b"x" * 17 * 2**20 + b'"}',
        "longer than 16 MiB",
    ),
    _named(
        "a field that is given twice is named",
        b'{"image_path": "odd.png", "caption": "x", "caption": "y"}',
        "given twice",
    ),
    _named("a row without media is named", b'{"caption": "an odd one"}', "needs either image_path or video_path"),
    _named("a slip in a field is named with what was meant", b'{"image_pth": "odd.png", "caption": "x"}', "image_path"),
    _named("a row with a picture and a clip is named", _row(video_path="steady.mp4"), "needs either"),
    _named("a number for a path is named", _row(image_path=7), "must be a path"),
    _named("a list of paths is named", _row(image_path=["odd.png"]), "must be a path"),
    _named("null for a path is named", _row(image_path=None), "must be a path"),
    _named("an empty path is named", _row(image_path=""), "must be a path"),
    _named("a path of blanks is named", _row(image_path="  "), "must be a path"),
    _named("a file that is missing is named", _row(image_path="gone.png"), "names no file"),
    _named("an absolute path that is missing is named", _row(image_path="/gone/odd.png"), "names no file"),
    _named("an address for a path is named", _row(image_path="http://127.0.0.1:9/odd.png"), "names no file"),
    _named("a path with a NUL is named", _row(image_path="odd\0.png"), "names no file"),
    _named("a path longer than any is named", _row(image_path="x" * 5000 + ".png"), "names no file"),
    _named("a folder without pictures is named", _row(image_path=".."), "without pictures"),
    _named("a folder of pictures is a clip, here one that is too short", _row(image_path="."), "too short"),
    _named("a table for a picture is named", _row(image_path=_TABLE), "not read"),
    _named("a number for a caption is named", _row(caption=7), "must be text"),
    _named("true for a caption is named", _row(caption=True), "must be text"),
    _named("an object for a caption is named", _row(caption={"en": "an odd one"}), "must be text"),
    _named("a number among captions is named", _row(caption=["an odd one", 7]), "must be text"),
    _named("lists of captions in a list are named", _row(caption=[["an odd one"]]), "must be text"),
    _named("half a letter in a caption is named", b'{"image_path": "odd.png", "caption": "\\ud83e"}', "is not UTF-8"),
    _named("null for a caption is a missing one", _row(caption=None), "caption is missing"),
    _named("a row without a caption is named", b'{"image_path": "odd.png"}', "caption is missing"),
    _named("an empty list of captions is a missing one", _row(caption=[]), "caption is missing"),
    _named("a row with caption and captions is named", _row(captions=["x"]), "both caption and captions"),
    _named("a weight that is no number is named", _row(weight="heavy"), "weight must be a number"),
    _named("a weight below 0 is named", _row(weight=-1), "weight must be a number"),
    _named("true for a weight is named", _row(weight=True), "weight must be a number"),
    _named("an infinite weight is named", _row(weight=math.inf), "weight must be a number"),
    _named(
        "a weight without end is named", b'{"image_path": "odd.png", "caption": "x", "weight": 1e999}', "weight must"
    ),
    _named("a control that is missing is named", _row(control_path="gone.png"), "control_path names no file"),
    _named("a control of no number is named", _row(control_path_left="fine.png"), "is not a control"),
    _named("a control in a list is named", _row(control_path=["fine.png"]), "must be a path"),
    _named("a clip for a control of a picture is named", _row(control_path="steady.mp4"), "control is a clip"),
    _named("a mask that is missing is named", _row(mask_path="gone.png"), "mask_path names no file"),
    _kept("a weight of nothing is 1", _row(weight=None), _ODD),
    _kept("a weight that is not a number counts as none", _row(weight=math.nan), _ODD),
    _kept("a weight of 0 is a weight", _row(weight=0), Kept("odd.png", captions=("an odd one",), weight=0.0)),
    _kept("a weight in quotes is a weight", _row(weight="2.5"), Kept("odd.png", captions=("an odd one",), weight=2.5)),
    _kept("a field that nobody knows does not matter", _row(source="web", id=7), _ODD),
    _kept("an absolute path is a path", _row(image_path="ROOT/odd.png"), _ODD),
    _kept("a path with backslashes is a path", _row(image_path=".\\odd.png"), _ODD),
    _kept("a path with blanks around it is a path", _row(image_path=" odd.png\n"), _ODD),
    _kept("a path that goes round about is a path", _row(image_path="./../files/odd.png"), _ROUND),
    _kept("a picture in the field for clips is a picture", b'{"video_path": "odd.png", "caption": "an odd one"}', _ODD),
    _kept(
        "an empty caption is a caption, and noted in its row",
        _row(caption=""),
        _EMPTY,
        noted={_PLACE: "caption is empty"},
    ),
    _kept("a list of captions is several captions", _row(caption=["an odd one", " a fox "]), _TWO),
    _named(
        "fields of odd letters are shown so that they can be printed", b'{"a\\nb": 1, "\\ud83e": 2}', "needs either"
    ),
    _kept("a blank row does not matter", b"  \r"),
    _kept(
        "a file in two rows is two items",
        _row(image_path="fine.png"),
        Kept("fine.png", captions=("an odd one",)),
    ),
    _kept("the picture itself may be its control", _row(control_path="odd.png"), _SELF),
    _whole("a table with a mark in front is read", b"\xef\xbb\xbf" + _FINE + b"\n" + _STEADY),
    _whole("a table with line ends of Windows is read", _FINE + b"\r\n\r\n" + _STEADY + b"\r\n"),
    _whole("a table in UTF-16 is refused", (_FINE + b"\n").decode().encode("utf-16"), refused="UTF-16"),
    _whole("an empty table is refused", b"", refused="has no row"),
    _whole("a table of blank lines is refused", b"\n \n\r\n", refused="has no row"),
    Case(name="a table that is missing is refused", write=nothing, read=rows, refused=_TABLE),
    Case(
        name="a folder called like a table is refused",
        write=lambda root: (root / _TABLE).mkdir(),
        read=rows,
        refused="not a file",
    ),
)
"""Rows, by one rule: what a row says is done, or the row is named, and no other suffers."""
