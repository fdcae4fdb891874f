"""Deleting what a cache does not need any more, and nothing else."""

from __future__ import annotations

from pathlib import Path

from musubi.cache import format as files
from musubi.cache import writing
from musubi.cache.manifest import Manifest
from musubi.core.errors import CacheError, Issue, shown


def leftovers(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the entries that no output of the manifest lists, and of a killed build's temporary files.

    Only files whose header says that they were made for this architecture's cache count.

    Raises:
        CacheError: The manifest holds no item, so that everything would be a leftover.
    """
    if not manifest.items:
        hint = "build it first; to remove all of it, delete the folder"
        raise CacheError("nothing is pruned", [Issue(shown(folder), "the cache holds no item", hint)])
    listed = {file.name for file in manifest.files}
    entries = (path.name for path in folder.glob(f"*{files.SUFFIX}") if path.name not in listed)
    ours = {name for name in entries if _is_ours(folder / name, manifest.architecture)}
    return tuple(sorted(ours | set(writing.temporaries(folder))))


def prune(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Delete the leftovers and return their names; only for who holds the lock.

    Raises:
        CacheError: The manifest holds no item, or a file may not be deleted.
    """
    names = leftovers(folder, manifest)
    for name in names:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            hint = "check the folder's permissions, and that nothing has the file open"
            issue = Issue(shown(folder / name), error.strerror or str(error), hint)
            raise CacheError("cannot delete", [issue]) from error
    return names


def _is_ours(path: Path, architecture: str) -> bool:
    """Return whether an entry carries our fingerprint: a link, a folder or a foreign file does not."""
    if path.is_symlink() or not path.is_file():
        return False
    facts = files.read_facts(path) or {}
    return files.FINGERPRINT in facts and facts.get("architecture") == architecture
