"""The manifest: what a cache holds, made from what. It is the truth; the folder's other content is not looked at."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import cattrs

from musubi.cache import format as files
from musubi.core.errors import CacheError, Issue, shown
from musubi.data.sample import Item

FILE = "manifest.json"
FORMAT = 1


@attrs.frozen(kw_only=True)
class CachedFile:
    """A file of the cache: its size, checksum and the batch key of its tensors."""

    name: str
    bytes: int
    sha256: str
    key: str


@attrs.frozen(kw_only=True)
class Output:
    """What one stage made of one item or caption; ``fingerprint`` tells everything that went into it."""

    stage: str
    fingerprint: str
    files: tuple[CachedFile, ...]


@attrs.frozen(kw_only=True)
class CachedItem:
    """A training item and, for each stage, the label of its output; items may share outputs."""

    item: Item
    outputs: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Manifest:
    """Everything a trainer needs to know of a cache.

    ``dtype`` is what the encoders ran in, ``dataset`` the fingerprint of the dataset, ``problems`` what was left out.
    """

    architecture: str
    dtype: str
    dataset: str
    stages: tuple[str, ...]
    items: tuple[CachedItem, ...]
    outputs: Mapping[str, Output]
    problems: tuple[Issue, ...] = ()
    format: int = FORMAT

    @property
    def buckets(self) -> Mapping[str, int]:
        """How many items each bucket has, largest first."""
        return dict(Counter(cached.item.bucket_label for cached in self.items).most_common())

    @property
    def bytes(self) -> int:
        """What the entries take on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def files(self) -> tuple[CachedFile, ...]:
        """All files of the cache."""
        return tuple(file for output in self.outputs.values() for file in output.files)

    @property
    def content(self) -> str:
        """A hash of what training sees: the items, their repeats and batches, and every entry's content."""
        parts = [
            [
                cached.item.name,
                cached.item.repeats,
                cached.item.batch_size,
                [
                    [stage, [f.sha256 for f in self.outputs[label].files]]
                    for stage, label in sorted(cached.outputs.items())
                ],
            ]
            for cached in self.items
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def exists(folder: Path) -> bool:
    """Return whether a folder holds a manifest."""
    return (folder / FILE).is_file()


def save(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically; equal manifests give equal bytes."""
    text = json.dumps(_converter().unstructure(manifest), indent=1, ensure_ascii=False, sort_keys=True)
    files.write(folder / FILE, (text + "\n").encode())


def load(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        CacheError: There is none, or it is damaged or of a newer version.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CacheError(
            "not built yet", [Issue(shown(folder), "has no manifest", "call .build(dataset) first")]
        ) from None
    except NotADirectoryError:
        hint = "give the folder of a cache, or a new one"
        raise CacheError("no cache", [Issue(shown(folder), "is a file, not a folder", hint)]) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if isinstance(values, dict) and values.get("format", 0) > FORMAT:
        raise _damaged(path, f"has format {values['format']}, this version reads up to {FORMAT}")
    try:
        return _converter().structure(values, Manifest)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"is not a manifest ({type(error).__name__})") from error


def _damaged(path: Path, message: str) -> CacheError:
    hint = "build again: entries whose files are whole are kept"
    return CacheError("damaged manifest", [Issue(shown(path), message, hint)])


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(unstruct_collection_overrides={tuple: list})
    converter.register_unstructure_hook(Path, _shareable)
    converter.register_unstructure_hook(
        Issue, lambda issue: attrs.asdict(attrs.evolve(issue, path=_shareable(issue.path)))
    )
    converter.register_structure_hook(Path, _path)
    return converter


def _shareable(path: Path | str) -> str:
    """Return a path as an artefact may hold it: as the user wrote it, but of an absolute one the name alone."""
    written = Path(path)
    return written.name if written.is_absolute() else written.as_posix()


def _path(value: Any, _: Any) -> Path:
    return Path(PurePosixPath(value))
