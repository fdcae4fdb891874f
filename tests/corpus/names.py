"""Files with names that break programs: each has its own caption and keeps it."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from musubi.core.errors import shown
from tests.corpus.case import Case, Kept, clip, each
from tests.corpus.paint import picture_bytes, plain_clip, write_bytes, write_picture

_COMPOSED, _TAKEN_APART = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def _both(stem: str) -> tuple[str, str]:
    """Return the names of a picture and of a clip with a stem each."""
    return f"{stem}.png", f"{stem} moves.mp4"


def _write(path: Path) -> Path:
    """Write a picture or a clip with a caption of its name; what is no text is left out of that."""
    content = plain_clip() if path.suffix == ".mp4" else picture_bytes()
    return write_bytes(path, content, caption=_caption(path.name))


def _caption(name: str) -> str:
    return f"this is {shown(name)}"


def _kept(path: str) -> Kept:
    kept = clip(path) if path.endswith(".mp4") else Kept(path)
    return attrs.evolve(kept, captions=(_caption(path),))


def _odd(what: str, *stems: str, needs: Callable[[], str | None] = lambda: None) -> Case:
    """Return the case of pictures and clips with odd stems."""
    names = [name for stem in stems for name in _both(stem)]
    return _files(f"names with {what} are names", names, needs=needs)


def _files(name: str, names: Sequence[str], *, needs: Callable[[], str | None] = lambda: None) -> Case:
    return Case(name=name, write=each(_write, names), kept=[_kept(one) for one in names], needs=needs)


def _not_windows() -> str | None:
    return "Windows has no such names" if sys.platform == "win32" else None


def _bytes_for_names() -> str | None:
    return None if sys.platform == "linux" else "names are Unicode here"


def _case_counts() -> str | None:
    return "names differ by more than case here" if sys.platform in {"darwin", "win32"} else None


def _apart(root: Path) -> None:
    """Write a picture whose name is composed, and its caption's is not."""
    path = write_picture(root / f"{_COMPOSED}.png", caption="a café")
    path.with_suffix(".txt").rename(root / f"{_TAKEN_APART}.txt")


def _hidden(root: Path) -> None:
    """Write what systems leave behind beside people's files."""
    for name in (".odd.png", "._fine.png", "._steady.mp4", ".thumbnails/odd.png", "__MACOSX/fine.png"):
        write_bytes(root / name, b"\0\5\x16\7" + bytes(100))


def _one_stem(path: Path) -> None:
    if path.suffix == ".mp4":
        write_bytes(path, plain_clip(), caption="an odd one")
    else:
        write_picture(path, caption="an odd one")


CASES = (
    _odd("blanks", "two  blanks", " first", "last "),
    _odd("letters of the world", "狐狸", "лиса", "ثعلب", "ñandú"),
    _odd("emoji", "🦊", "👩‍👩‍👧"),
    _odd("brackets", "[a]", "{b}", "(c)", "<d>", "a[0-9]", needs=_not_windows),
    _odd("letters that mean others in a shell", "a*", "a?", "a*b?[!c]", "$HOME", "a;b", "a|b", "~", needs=_not_windows),
    _odd("brackets only", "[]", "[a", "a]"),
    _odd("percent signs", "100%", "%03d", "a%20b", "%s%n"),
    _odd("quotes", "it's", 'a "fox"', "`a`", needs=_not_windows),
    _odd("a dash in front", "-", "--help", "-rf"),
    _odd("dots", "a.b", "a.b.c", "v1.5", "a.", "a..", "a.png"),
    _odd("a backslash", "a\\b", "C:\\a", needs=_not_windows),
    _odd("a colon, like addresses", "http:a", "file:a", "concat:a", "a:b", "pipe:0", needs=_not_windows),
    _odd("line ends and tabs", "a\nb", "a\tb", "a\rb", "\n", needs=_not_windows),
    _odd("letters that are not shown", "a\u200bb", "a\u202eb", "\ufeffa", "a\u00a0b"),
    _odd("control letters", "a\x01b", "a\x1b[31mb", "a\x7f", needs=_not_windows),
    _odd("bytes that are no text", "odd\udcff", "\udce4\udcf6", needs=_bytes_for_names),
    _odd("names of devices of Windows", "CON", "aux", "nul", "COM1", "prn", needs=_not_windows),
    _files("names of 250 bytes are names", ["x" * 246 + ".png", "y" * 246 + ".mp4"]),
    _files("names of 250 bytes in few letters are names", ["狐" * 82 + ".png", "🦊" * 61 + ".mp4"]),
    _files("long names that differ in their last letter are two", [f"{'x' * 240}{n}.png" for n in "ab"]),
    _files("pictures, clips and endings of one stem are all kept", ["cat.png", "dog.png", "cat 2.png", "cat_2.png"]),
    Case(
        name="files of one stem share a caption and are all kept",
        write=each(_one_stem, ("odd.png", "odd.jpg", "odd.webp", "odd.mp4")),
        kept=[
            *(Kept(f"odd.{ending}", captions=("an odd one",)) for ending in ("png", "jpg", "webp")),
            clip("odd.mp4", captions=("an odd one",)),
        ],
    ),
    _files("names that differ in case alone are two", ["Odd.png", "odd.png", "ODD.png"], needs=_case_counts),
    _files(
        "names that differ in composition alone are two",
        [f"{_COMPOSED}.png", f"{_TAKEN_APART}.png"],
        needs=_bytes_for_names,
    ),
    Case(
        name="a caption whose name is composed in another way is found",
        write=_apart,
        kept=[Kept(f"{_COMPOSED}.png", captions=("a café",))],
        needs=_bytes_for_names,
    ),
    _files(
        "a picture called like a window of a clip is not it",
        ["steady_00000-005.png", "steady_00000-001.png"],
    ),
    _files("a picture called like another with its caption's ending is itself", ["a.png", "a.txt.png"]),
    _files("names that begin like another are their own", ["a.png", "aa.png", "a_1.png", "a_10.png", "a_1_0.png"]),
    _files("names of digits are names", ["0.png", "00.png", "1.png", "01.png", "1e3.png", "-1.png"]),
    _files(
        "names that mean something to programs are names",
        ["None.png", "nan.png", "true.png", "manifest.png"],
    ),
    Case(name="hidden files and what systems leave are passed over", write=_hidden),
)
"""Names, by one rule: a file is found with its own caption, whatever it is called."""
