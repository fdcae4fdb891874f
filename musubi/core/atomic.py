"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from musubi.core.errors import ConfigError, Issue, shown


@contextmanager
def replacing(path: Path | str) -> Generator[Path, None, None]:
    """Give a temporary path beside ``path``; on a clean exit it is synced to disk and renamed over ``path``.

    On an error the temporary file is removed and ``path`` is untouched.

    Raises:
        ConfigError: The system does not let it be written.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.stem[:40]}.{secrets.token_hex(6)}.tmp{final.suffix}")
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        permissions = temporary.stat().st_mode  # the user's ordinary ones, which some writers narrow to 0600
        try:
            yield temporary
            temporary.chmod(permissions)
            sync_file(temporary)
            temporary.replace(final)
            sync_folder(final.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Turn what the system has against writing a file or folder into a ``ConfigError`` that names it."""
    try:
        yield
    except OSError as error:
        hint = "give another place, or make room and check the permissions of this one"
        raise ConfigError("cannot write", [Issue(shown(path), error.strerror or str(error), hint)]) from error


def check_writable(folder: Path) -> None:
    """Make sure that files can be put into a folder, or into the one in which it would be made; leaves no trace.

    Raises:
        ConfigError: They cannot.
    """
    existing = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    with writing(folder):
        if not existing.is_dir():
            raise NotADirectoryError(f"{shown(existing)} is a file")
        probe = existing / f".{secrets.token_hex(6)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 text atomically, newlines as given, and return the path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return Path(path)


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write bytes atomically and return the path."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def sync_file(path: Path) -> None:
    """Ask the system to put a file's content on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Ask the system to put a folder's entries on the disk, where it can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
