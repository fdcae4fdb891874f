"""Caption files beside media: which belongs to which, and what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from musubi.core.errors import DataError, Issue, shown
from musubi.data.sources.matching import Named, composed
from musubi.data.sources.tree import Tree

_LONGEST = 1 << 20
"""Characters; what is longer is no caption, and reading it might fill the memory."""


def find_captions(media: Sequence[Named], tree: Tree, extension: str) -> dict[Path, Path]:
    """Return the caption file of each item that has one: its stem and ``extension``; of a folder, its whole name.

    Names that differ in Unicode composition, or extensions in case (``cat.TXT``), count as equal where only one item
    can be meant.
    """
    end = extension.casefold()
    files = {path for found in tree.folders.values() for path in found if path.name.casefold().endswith(end)}
    exact = {item.path: path for item in media if (path := caption_path(item, extension)) in files}
    near = {_key(path, extension): path for path in sorted(files - set(exact.values()), reverse=True)}
    wanted = {item.path: (item.path.parent, item.stem) for item in media if item.path not in exact}
    rivals = Counter(wanted.values())
    return exact | {path: near[key] for path, key in wanted.items() if key in near and rivals[key] == 1}


def caption_path(item: Named, extension: str) -> Path:
    """Return where the caption of an item is looked for."""
    return item.path.with_name(item.written + extension)


def read_captions(path: Path, *, by_line: bool) -> tuple[str, ...]:
    """Return what a caption file says: one caption, stripped, or one for each line that is not blank.

    An empty file is an empty caption.

    Raises:
        DataError: The file cannot be read, or is not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST + 1)
    except UnicodeDecodeError as error:
        raise _refused(path, "caption is not UTF-8", "save the file as UTF-8 text") from error
    except OSError as error:
        raise _refused(path, f"caption cannot be read: {error.strerror}", "check the file") from error
    if len(text) > _LONGEST:
        raise _refused(path, "caption is longer than a million characters", "check the file")
    if "\0" in text:
        raise _refused(path, "caption is not text", "save the file as UTF-8 text")
    lines = [line.strip() for line in text.split("\n")] if by_line else [text.strip()]
    return tuple(line for line in lines if line) or ("",)


def _key(path: Path, extension: str) -> tuple[Path, str]:
    return path.parent, composed(path.name[: -len(extension)])


def _refused(path: Path, message: str, hint: str) -> DataError:
    return DataError("cannot read", [Issue(shown(path), message, hint)])
