"""Putting files into a cache: whole or not at all, and on the disk before the manifest says so."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from musubi.core import atomic
from musubi.core.errors import CacheError, ConfigError, Issue, shown

_TEMPORARY = re.compile(r"\..{1,40}\.[0-9a-f]{12}\.tmp(\.[a-z]+)?", re.DOTALL)
"""The names that ``place`` and ``core.atomic`` give to files on their way."""

_SYNCING = 8
"""Threads that wait for the disk: a file system puts what several ask for on the disk together."""


def place(path: Path, data: bytes) -> None:
    """Write a file that is there and whole, or not there, while the power lasts; ``sync`` makes it last longer.

    Raises:
        CacheError: The disk is full, or the folder may not be written.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(6)}.tmp{path.suffix}")
    with _writing(path):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def sync(folder: Path, names: Iterable[str]) -> None:
    """Ask the system to put files and their names on the disk.

    Raises:
        CacheError: It cannot.
    """
    with _writing(folder), ThreadPoolExecutor(_SYNCING, thread_name_prefix="musubi-sync") as pool:
        list(pool.map(atomic.sync_file, map(folder.joinpath, names)))
        atomic.sync_folder(folder)


def write(path: Path, data: bytes) -> None:
    """Write a file that is there and whole, or not there, even if the power fails.

    Raises:
        CacheError: The disk is full, or the folder may not be written.
    """
    try:
        atomic.write_bytes(path, data)
    except ConfigError as error:
        raise _refused(path, "; ".join(issue.message for issue in error.issues)) from error


def make_folder(folder: Path) -> None:
    """Make a cache's folder unless it is there.

    Raises:
        CacheError: A file is in its place, or it may not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        hint = "give the folder of a cache, or a new one"
        raise CacheError("no cache", [Issue(shown(folder), "is a file, not a folder", hint)]) from error
    except OSError as error:
        raise _refused(folder, error.strerror or str(error)) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files of builds that were killed; only for who holds the lock."""
    for name in temporaries(folder):
        (folder / name).unlink(missing_ok=True)


def temporaries(folder: Path) -> list[str]:
    """Return the names of the temporary files in a folder."""
    return sorted(entry.name for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name))


@contextmanager
def _writing(path: Path) -> Generator[None]:
    """Turn what the system has against writing into an error that says the way out."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        raise _refused(path, error.strerror or str(error), full=full) from error


def _refused(path: Path, reason: str, *, full: bool = False) -> CacheError:
    what = "free some space" if full else "free some space or check the folder's permissions"
    return CacheError("cannot write", [Issue(shown(path), reason, f"{what}, then build again: it goes on from here")])
