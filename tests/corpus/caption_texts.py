"""Captions that are missing, odd or no text at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from tests.corpus.case import Case, Kept, dataset, said
from tests.corpus.paint import noise, write_picture

_ODD = "odd.png"


def _written(content: bytes) -> Callable[[Path], None]:
    """Return what writes a picture with this content in its caption file."""

    def write(root: Path) -> None:
        write_picture(root / _ODD)
        (root / "odd.txt").write_bytes(content)

    return write


def _read(name: str, content: bytes, caption: str) -> Case:
    noted = {} if caption else {_ODD: "caption is empty"}
    return Case(name=name, write=_written(content), kept=[Kept(_ODD, captions=(caption,))], noted=noted)


def _named(name: str, content: bytes, message: str) -> Case:
    return Case(name=name, write=_written(content), reported={"odd.txt": message})


def _missing(root: Path) -> None:
    write_picture(root / _ODD)
    (root / "odd.txt").unlink()


def _elsewhere(name: str) -> Callable[[Path], None]:
    """Return what writes a picture whose caption is under another name."""

    def write(root: Path) -> None:
        write_picture(root / _ODD)
        (root / "odd.txt").rename(root / name)

    return write


def _directory(root: Path) -> None:
    _missing(root)
    (root / "odd.txt").mkdir()


def _lines(root: Path) -> Dataset:
    return dataset(Folder(root, caption_lines=True))


def _sensitive() -> str | None:
    """Return why names that differ in case cannot be told apart here."""
    return "names differ by more than case here" if sys.platform in {"darwin", "win32"} else None


def _no_pipes() -> str | None:
    return None if hasattr(os, "mkfifo") else "there are no pipes here"


def _pipe(root: Path) -> None:
    _missing(root)
    os.mkfifo(root / "odd.txt")


CASES = (
    Case(
        name="a missing caption is named with the file to write",
        write=_missing,
        reported={_ODD: "caption is missing"},
    ),
    Case(
        name="a caption under a picture's whole name is not taken, which is said",
        write=_elsewhere("odd.png.txt"),
        reported={_ODD: "caption is missing"},
    ),
    Case(
        name="a caption with its ending in capitals is taken",
        write=_elsewhere("odd.TXT"),
        kept=[Kept(_ODD)],
    ),
    Case(
        name="a caption whose name differs in case is not taken where case counts",
        write=_elsewhere("Odd.txt"),
        reported={_ODD: "caption is missing"},
        needs=_sensitive,
    ),
    Case(name="a folder called like a caption is none", write=_directory, reported={_ODD: "caption is missing"}),
    Case(
        name="a pipe called like a caption is not waited for",
        write=_pipe,
        reported={_ODD: "caption is missing"},
        needs=_no_pipes,
    ),
    _read("an empty caption is a caption, and noted", b"", ""),
    _read("a caption of nothing but blanks is an empty one", b" \t\r\n \xc2\xa0\n", ""),
    _read("a byte order mark is not part of a caption", b"\xef\xbb\xbfa fox", "a fox"),
    _read("a mark alone is an empty caption", b"\xef\xbb\xbf", ""),
    _read("blanks around a caption are left out", b"\n\n  a fox  \n", "a fox"),
    _read("line ends of Windows within a caption are line ends", b"a fox\r\nin snow\r\n", "a fox\nin snow"),
    _read("line ends of old Macs within a caption are line ends", b"a fox\rin snow\r", "a fox\nin snow"),
    _read(
        "a caption of all the world's letters is kept", "狐 🦊 лиса ثعلب e\u0301".encode(), "狐 🦊 лиса ثعلب e\u0301"
    ),
    _read(
        "a caption that looks like code is text",
        b'<lora:x:1> (fox:1.2) {a|b} \\n "',
        '<lora:x:1> (fox:1.2) {a|b} \\n "',
    ),
    _read("a caption of a hundred thousand letters is read", b"fox " * 25_000, "fox " * 24_999 + "fox"),
    _named("a caption of a million and more letters is named", b"fox " * 300_000, "longer than a million"),
    _named("a caption in UTF-16 is named", "a fox".encode("utf-16"), "not UTF-8"),
    _named("a caption in UTF-16 without a mark is named", "a fox".encode("utf-16-le"), "not text"),
    _named("a caption in Latin-1 is named", "ein Fuchs, müde".encode("latin-1"), "not UTF-8"),
    _named("a caption with a NUL is named", b"a fox\0 in snow", "not text"),
    _named("noise for a caption is named", noise(400), "not UTF-8"),
    Case(
        name="of a caption by lines each that is not blank is one",
        write=_written(b"\xef\xbb\xbfa fox\r\n\r\n  \r\n in snow \r\n"),
        read=_lines,
        kept=[Kept(_ODD, captions=("a fox", "in snow"))],
    ),
    Case(
        name="of a caption by lines the same line twice is one caption",
        write=_written(b"a fox\na fox\nin snow"),
        read=_lines,
        kept=[Kept(_ODD, captions=("a fox", "in snow"))],
    ),
    Case(
        name="a picture and a clip of one stem share their caption",
        write=lambda root: [write_picture(root / "steady.png"), (root / "steady.txt").write_text(said("steady.mp4"))],
        kept=[Kept("steady.png", captions=(said("steady.mp4"),))],
    ),
    Case(
        name="a caption extension of several parts finds its captions",
        write=_elsewhere("odd.caption.txt"),
        read=lambda root: dataset(Folder(root, caption_extension=".caption.txt")),
        neighbours=(),
        kept=[Kept(_ODD)],
        reported={"fine.png": "caption is missing", "steady.mp4": "caption is missing"},
    ),
)
"""Captions, by what is written in them."""
