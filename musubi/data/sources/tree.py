"""The files of a folder and of those below it: sorted, without hidden ones, each folder once however links run."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import attrs

from musubi.core.errors import DataError, Issue, shown
from musubi.data.sample import UNREAD, kind_of

_NOT_OURS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that systems put beside people's files, some of them full of thumbnails."""


@attrs.frozen(kw_only=True)
class Tree:
    """Folders, each with its files sorted by name; ``issues`` are about what cannot be listed or opened."""

    root: Path
    folders: Mapping[Path, tuple[Path, ...]]
    issues: tuple[Issue, ...] = ()


@attrs.frozen(kw_only=True)
class _Content:
    """What lies in one folder; ``broken`` are media by name that are neither file nor folder."""

    files: list[Path] = attrs.field(factory=list)
    folders: list[Path] = attrs.field(factory=list)
    links: list[Path] = attrs.field(factory=list)
    broken: list[Path] = attrs.field(factory=list)


def walk(root: Path, *, depth: int | None = 0, leave_out: Collection[Path] = ()) -> Tree:
    """Return the files of a folder and of ``depth`` levels below it; None: of all.

    Links to folders are followed after all real folders, and no folder is listed twice, so a loop of links ends.

    Raises:
        DataError: The folder itself cannot be listed.
    """
    seen = {_real(path) for path in leave_out}
    folders: dict[Path, tuple[Path, ...]] = {}
    issues: list[Issue] = []
    waiting, links = deque([(root, 0)]), deque[tuple[Path, int]]()
    while waiting or links:
        folder, level = waiting.popleft() if waiting else links.popleft()
        real = _real(folder)
        if real in seen:
            continue
        seen.add(real)
        content = _listed(folder, issues, required=folder == root)
        folders[folder] = tuple(content.files)
        issues += [_broken(path) for path in content.broken]
        if depth is None or level < depth:
            waiting.extend((path, level + 1) for path in content.folders)
            links.extend((path, level + 1) for path in content.links)
    return Tree(root=root, folders=folders, issues=tuple(issues))


def holds_pictures(folder: Path) -> bool:
    """Return whether pictures lie directly in a folder, which makes it a clip."""
    try:
        return any(kind_of(path) == "image" for path in _content(folder).files)
    except OSError:
        return False


def _listed(folder: Path, issues: list[Issue], *, required: bool) -> _Content:
    """Return a folder's content; of one below the root that cannot be listed nothing, but an issue."""
    try:
        return _content(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "check the path and its permissions, and that the disk is mounted"
        issue = Issue(shown(folder), reason, hint)
        if required:
            raise DataError("cannot read folder", [issue]) from error
        issues.append(issue)
        return _Content()


def _content(folder: Path) -> _Content:
    with os.scandir(folder) as found:
        entries = sorted((e for e in found if not e.name.startswith(".") and e.name not in _NOT_OURS), key=_name)
    content = _Content()
    for entry in entries:
        path = folder / entry.name
        if _holds(entry.is_file):
            content.files.append(path)
        elif _holds(entry.is_dir):
            (content.links if entry.is_symlink() else content.folders).append(path)
        elif _is_medium(path):
            content.broken.append(path)
    return content


def _real(path: Path) -> str:
    """Return a folder as it is without links; what is no path at all is refused when it is listed."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return str(path)


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _holds(question: Callable[[], bool]) -> bool:
    """Return the answer, no where the system refuses to look or a link leads round in a circle."""
    try:
        return question()
    except OSError:
        return False


def _is_medium(path: Path) -> bool:
    return kind_of(path) is not None or path.suffix.lower() in UNREAD


def _broken(path: Path) -> Issue:
    if path.is_symlink():
        return Issue(shown(path), "is a link that leads to no file", "restore the file or remove the link")
    return Issue(shown(path), "is not an ordinary file, or may not be looked at", "check it and its permissions")
