"""What was seen in source files before, so that a file of the same size and modification time is not opened again."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from tqdm.auto import tqdm

from musubi.cache import writing
from musubi.core.errors import CacheError, DataError, Issue, shown
from musubi.data.sample import Probe, kind_of

FILE = ".files.json"
_RULES = 1
"""Raised whenever looking into files tells something else of them, so that what was remembered is forgotten."""

_RACY_NS = 2_000_000_000
"""A file changed this shortly before it was read may change again without a new time: it is not remembered."""

_OTHERS = 100_000
"""Files beyond those of the last build that are remembered: a disk that was not mounted then may be there again."""

_THREADS = 4
_PATIENCE_S = 1.0

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""Number of files (a folder of frames has many), bytes, and the latest modification time in ns: what a look tells."""


_Known = list[Any]
"""A stamp, a digest or None, and what a probe told if there was one: as JSON has it, and only read when asked for."""


@attrs.define
class _Seen:
    """A file as it is in this build; ``racy`` if it was changed a moment ago."""

    key: str
    stamp: Stamp
    racy: bool
    digest: str | None = None
    probe: Probe | None = None


class FileMemory:
    """Content hashes and probes of files and of folders of frames, each looked at once in a build.

    Only an accelerator: the file beside the manifest may be deleted at any time. It holds no paths, but their hashes.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._known = _read(self._path)
        self._asked: dict[str, _Seen] = {}
        self._changed = False

    def reload(self) -> None:
        """Learn what another build has seen in the meantime."""
        self._known |= _read(self._path)
        for seen in self._asked.values():
            if seen.digest is None:
                self._recall(seen)

    def probe(self, path: Path) -> Probe:
        """Return what a file holds; raises ``DataError`` if it cannot be read."""
        from musubi.data.media.loading import probe

        seen = self._seen(path)
        if seen.probe is None:
            seen.probe = probe(path)
            self._changed = True
        return seen.probe

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's content; raises ``DataError`` if it cannot be read."""
        seen = self._seen(path)
        if seen.digest is None:
            seen.digest = _digest(path)
            self._changed = True
        return seen.digest

    def stamp(self, path: Path) -> Stamp:
        """Return what a file looked like when it was asked for first; raises ``DataError``."""
        return self._seen(path).stamp

    def learn(self, paths: Iterable[Path], *, progress: bool) -> None:
        """Hash what is not known yet, several files at a time; what cannot be read is left for ``digest`` to say."""
        missing = [path for path in paths if self._lacks(path)]
        with (
            ThreadPoolExecutor(_THREADS, thread_name_prefix="musubi-hash") as pool,
            tqdm(total=len(missing), desc="hash", unit="file", delay=_PATIENCE_S, disable=not progress) as bar,
        ):
            for path, found in zip(missing, pool.map(_digest_or_none, missing), strict=True):
                self._seen(path).digest = found
                bar.update()
        self._changed |= bool(missing)

    def save(self) -> None:
        """Write down what was asked for, and what was known of others; a folder that cannot be written is no error."""
        if not self._changed:
            return
        asked = {seen.key: _plain(seen) for seen in self._asked.values() if not seen.racy}
        others = [key for key in self._known if key not in asked][-_OTHERS:]
        kept = {key: self._known[key] for key in others} | asked
        lines = ",\n".join(f'"{key}":{json.dumps(known)}' for key, known in kept.items())
        try:
            writing.write(self._path, f"{{{lines}}}\n".encode())
        except CacheError as error:
            logger.info("what was seen in the files is not remembered: %s", error)

    def _lacks(self, path: Path) -> bool:
        try:
            return self._seen(path).digest is None
        except DataError:
            return False

    def _seen(self, path: Path) -> _Seen:
        """Return a file as it is, with what was known of it if it still looks the same."""
        name = str(path)
        seen = self._asked.get(name)
        if seen is None:
            key = hashlib.sha256(f"{_RULES}/{path.absolute()}".encode(errors="surrogateescape")).hexdigest()[:32]
            stamp = stamp_of(path)
            seen = _Seen(key, stamp, time.time_ns() - stamp[2] <= _RACY_NS)
            self._recall(seen)
            self._asked[name] = seen
        return seen

    def _recall(self, seen: _Seen) -> None:
        known = self._known.get(seen.key)
        if known is not None and known[:3] == [*seen.stamp]:
            _recall(seen, known)


def stamp_of(path: Path) -> Stamp:
    """Return a file's stamp, or that of a folder of frames; raises ``DataError`` if it cannot be looked at."""
    try:
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            return 1, found.st_size, found.st_mtime_ns
        inner = [frame.stat() for frame in _frames(path)]
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return len(inner), sum(f.st_size for f in inner), max([found.st_mtime_ns, *(f.st_mtime_ns for f in inner)])


def _frames(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if kind_of(path) == "image" and not path.name.startswith("."))


def _digest(path: Path) -> str:
    """Return the hash of a file, or of the names and hashes of a folder's frames."""
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        frames = [[frame.name, _digest(frame)] for frame in _frames(path)]
    except OSError as error:
        raise _unreadable(path, error) from error
    return hashlib.sha256(json.dumps(frames).encode()).hexdigest()


def _digest_or_none(path: Path) -> str | None:
    try:
        return _digest(path)
    except DataError:
        return None


def _unreadable(path: Path, error: OSError | ValueError) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)
    return DataError("cannot read", [Issue(shown(path), reason, "check the file")])


def _plain(seen: _Seen) -> _Known:
    probe = seen.probe
    looked = [] if probe is None else [probe.kind, *probe.size, probe.frames, probe.fps, probe.cut, *probe.times]
    return [*seen.stamp, seen.digest, *looked]


def _recall(seen: _Seen, known: _Known) -> None:
    """Fill in what was known; a damaged memory is none."""
    _, _, _, digest, *looked = known
    if isinstance(digest, str):
        seen.digest = digest
    try:
        kind, width, height, frames, fps, cut, *times = looked
        if kind in {"image", "video"} and isinstance(cut, bool):
            size, shown_at = (int(width), int(height)), tuple(map(float, times))
            seen.probe = Probe(kind=kind, size=size, frames=int(frames), fps=float(fps), times=shown_at, cut=cut)
    except (TypeError, ValueError, OverflowError):
        return


def _read(path: Path) -> dict[str, _Known]:
    """Return what a file of memories holds; a damaged one is forgotten."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {key: known for key, known in values.items() if isinstance(known, list) and len(known) >= 4}
