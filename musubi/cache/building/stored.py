"""What lies in a cache's folder: which listed outputs are whole, and which others can be taken over."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from musubi.cache import format as files
from musubi.cache.building.jobs import Job
from musubi.cache.records import CachedFile, Output, Plain, is_output_line

_THREADS = 4


class Stored:
    """The files of a folder as they are when this is made, beside what ``manifest``'s plain values list.

    Of a listed file only name and size are looked at; that its content is what was written is for ``verify`` and the
    first reading to tell. Other files are read, but only if something is missing.
    """

    def __init__(self, folder: Path, manifest: Plain | None) -> None:
        self._folder = folder
        self._sizes = {entry.name: entry.stat().st_size for entry in _entries(folder)}
        lines = manifest["outputs"] if manifest is not None else []
        self._lines: dict[str, Plain] = {line["fingerprint"]: line for line in lines if is_output_line(line)}
        self._unlisted: dict[str, dict[int, str]] | None = None

    def has(self, fingerprint: str) -> bool:
        """Return whether the manifest lists an output whose files are there and have their sizes."""
        line = self._lines.get(fingerprint)
        return line is not None and all(self._sizes.get(name) == size for name, size, *_ in line["files"])

    def line(self, fingerprint: str) -> Plain:
        """Return the manifest's line of an output that is there."""
        return self._lines[fingerprint]

    def found(self, jobs: Iterable[Job]) -> Iterator[Output]:
        """Yield the outputs among those wanted that lie there unlisted, whole and made of the same."""
        wanted = [(job, parts) for job in jobs if (parts := self._parts().get(job.fingerprint))]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="musubi-take-over") as pool:
            outputs = pool.map(self._taken_over, *zip(*wanted, strict=True)) if wanted else ()
            yield from (output for output in outputs if output is not None)

    @cached_property
    def _names(self) -> Mapping[str, str]:
        return {folded(name): name for name in self._sizes}

    def is_free(self, name: str, fingerprint: str) -> bool:
        """Return whether a file of this name may be written: there is none, or a damaged one of the same output."""
        there = self._names.get(folded(name))
        if there is None or self._sizes[there] == 0:
            return True
        line = self._lines.get(fingerprint)
        if line is not None and there in {listed for listed, *_ in line["files"]}:
            return True
        return (files.read_facts(self._folder / there) or {}).get(files.FINGERPRINT) == fingerprint

    def _parts(self) -> Mapping[str, Mapping[int, str]]:
        """Return the names of the unlisted entries by fingerprint and part; only headers are read."""
        if self._unlisted is None:
            self._unlisted = {}
            listed = {name for line in self._lines.values() for name, *_ in line["files"]}
            for name in sorted(self._sizes.keys() - listed):
                if name.endswith(files.SUFFIX) and not name.startswith("."):
                    facts = files.read_facts(self._folder / name) or {}
                    part = facts.get(files.PART, "")
                    if part.isdecimal():
                        known = self._unlisted.setdefault(facts.get(files.FINGERPRINT, ""), {})
                        known.setdefault(int(part), name)
        return self._unlisted

    def _taken_over(self, job: Job, parts: Mapping[int, str]) -> Output | None:
        """Return an output made of unlisted files if all its parts are there and whole."""
        described: list[CachedFile] = []
        for part, name in sorted(parts.items()):
            found = files.examine(self._folder / name)
            if found is None or part != len(described) or found.facts.get(files.PARTS) != str(len(parts)):
                return None
            described.append(CachedFile(name=name, bytes=found.bytes, sha256=found.sha256, key=found.key))
        return Output(stage=job.stage.name, fingerprint=job.fingerprint, files=tuple(described))


def folded(name: str) -> str:
    """Return what names that some file systems take for equal have in common: no case, composed letters."""
    return unicodedata.normalize("NFC", name).casefold()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if entry.is_file()]
    except FileNotFoundError:
        return []
