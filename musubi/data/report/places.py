"""Paths as reports show them: without what all of them have in common, and never absolute."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import Issue, printable, shown

if TYPE_CHECKING:
    from musubi.data.sample import Item
    from musubi.data.scan import Scan

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")
_PART = r"[^\s/:,;'\"()]+"
_ABSOLUTE_WITHIN = re.compile(rf"(?<![\w./:])(?:[A-Za-z]:)?/(?:{_PART}/)*({_PART}/{_PART})")
_LEAST_PARTS = 3
"""A common folder above which too many are is none: ``/home`` says nothing."""


@attrs.frozen
class Places:
    """The folder that all files of a scan are in, with a slash at its end; empty if there is none."""

    folder: str = ""

    @classmethod
    def of(cls, scan: Scan) -> Places:
        """Return the folder of all the files that a scan names by absolute paths."""
        common = _common([folder.split("/") for folder in _folders(scan) if _ABSOLUTE.match(folder)])
        return cls("/".join(common) + "/" if len(common) >= _LEAST_PARTS else "")

    def name(self, path: Path | str) -> str:
        """Return a path from the folder on; elsewhere an absolute path's last two parts."""
        text = shown(path) if isinstance(path, Path) else path
        if self.folder and text.startswith(self.folder):
            return printable(text[len(self.folder) :])
        return printable("/".join(text.split("/")[-2:]) if _ABSOLUTE.match(text) else text)

    def within(self, text: str) -> str:
        """Return a text with its absolute paths shortened."""
        known = text.replace(self.folder, "") if self.folder else text
        return printable(_ABSOLUTE_WITHIN.sub(r"\1", known))

    def issue(self, issue: Issue) -> Issue:
        """Return an issue with its paths shortened."""
        return Issue(self.name(issue.path), self.within(issue.message), self.within(issue.hint))


def _folders(scan: Scan) -> Iterator[str]:
    seen = {path.parent for item in scan.items for path in _files(item)}
    yield from map(shown, seen)
    for issue in (*scan.dropped, *scan.notes):
        yield issue.path.rpartition("/")[0]


def _common(paths: Sequence[list[str]]) -> list[str]:
    """Return the parts that all paths begin with: those that the first and the last in order share."""
    if not paths:
        return []
    first, last = min(paths), max(paths)
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return [part for part, _ in alike]


def _files(item: Item) -> Iterator[Path]:
    yield item.path
    for controls in item.controls.values():
        yield from (control.path for control in controls)
    if item.mask is not None:
        yield item.mask
