"""Reading a whole cache to find out whether it is what was written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from musubi.cache import format as files
from musubi.cache.manifest import CachedFile, Manifest
from musubi.core.errors import Issue, shown

_THREADS = 4


def verify(folder: Path, manifest: Manifest, *, progress: bool) -> tuple[Issue, ...]:
    """Return an issue for each file that is missing, cut off or not what was written."""
    listed = manifest.files
    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="musubi-verify") as pool,
        tqdm(total=len(listed), desc="verify", unit="file", disable=not progress) as bar,
    ):
        issues: list[Issue] = []
        for issue in pool.map(partial(_wrong, folder), listed):
            issues += [] if issue is None else [issue]
            bar.update()
    return tuple(issues)


def _wrong(folder: Path, file: CachedFile) -> Issue | None:
    issue = file_issue(folder, file)
    if issue is not None:
        return issue
    path = folder / file.name
    try:
        content = files.digest(path.read_bytes())
    except OSError as error:
        return Issue(shown(path), error.strerror or str(error), "check the disk, then build the cache again")
    if content == file.sha256:
        return None
    hint = "delete this file and build the cache again: only what is missing is encoded"
    return Issue(shown(path), "its content is not what was written", hint)


def file_issue(folder: Path, file: CachedFile) -> Issue | None:
    """Say what is wrong with a file as far as its directory entry tells."""
    path = folder / file.name
    hint = "build the cache again: only what is missing is encoded"
    try:
        found = path.stat().st_size
    except OSError:
        return Issue(shown(path), "is missing", hint)
    return None if found == file.bytes else Issue(shown(path), f"has {found} bytes instead of {file.bytes}", hint)
