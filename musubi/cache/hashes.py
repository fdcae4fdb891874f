"""Content hashes of source files, remembered by size and modification time."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from musubi.cache import format as files
from musubi.core.errors import DataError, Issue, shown

FILE = ".hashes.json"
_RACY_NS = 2_000_000_000
"""A file changed this shortly before it was hashed may change again without a new time; its hash is not remembered."""


class Hashes:
    """SHA-256 of files; a file of the same size and modification time is not read again.

    Only an accelerator: the file beside the manifest may be deleted at any time. It holds no paths, but their hashes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._known: dict[str, tuple[int, int, str]] = _read(self._path)
        self._fresh: dict[str, tuple[int, int, str]] = {}

    def of(self, path: Path) -> str:
        """Return a file's hash; raises ``DataError`` if it cannot be read."""
        try:
            stat = path.stat()
            key = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()
            known = self._fresh.get(key) or self._known.get(key)
            if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
                self._fresh[key] = known
                return known[2]
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(
                "cannot read", [Issue(shown(path), error.strerror or str(error), "check the file")]
            ) from error
        if time.time_ns() - stat.st_mtime_ns > _RACY_NS:
            self._fresh[key] = (stat.st_size, stat.st_mtime_ns, found)
        return found

    def save(self) -> None:
        """Remember the files that were asked for."""
        files.write(self._path, json.dumps(self._fresh, ensure_ascii=False).encode())


def _read(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): (int(size), int(changed), str(found)) for name, (size, changed, found) in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
