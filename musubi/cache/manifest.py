"""The manifest: what a cache holds, made from what. It is the truth; the folder's other content is not looked at."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

import attrs

from musubi.cache import writing
from musubi.cache.records import (
    CachedFile,
    CachedItem,
    Output,
    Plain,
    issue_line,
    issue_of,
    item_line,
    item_of,
    output_line,
    output_of,
)
from musubi.core.errors import CacheError, Issue, shown

__all__ = ["FILE", "FORMAT", "CachedFile", "CachedItem", "Manifest", "Output", "exists", "load", "save"]

FILE = "manifest.json"
FORMAT = 2

_LISTS = ("items", "outputs", "problems", "notes")
_FORM: Mapping[str, type] = MappingProxyType(
    {"architecture": str, "dtype": str, "dataset": str, "stages": list, **dict.fromkeys(_LISTS, list)}
)
_BEGINNING = re.compile(rb'\{"format":\d+,\s*"architecture":"(?P<architecture>[^"]+)",\s*"dtype":"(?P<dtype>[^"]+)"')
_MEMORY, _FIRST_BYTES = b'"memory":', 10_000

_NO_MANIFEST = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What values of other forms raise."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@attrs.frozen(kw_only=True)
class Manifest:
    """Everything a trainer needs to know of a cache.

    Args:
        architecture: Whose cache it is.
        dtype: What the encoders ran in.
        dataset: The fingerprint of the dataset, or of several together.
        stages: The stages that were run, in order; ``mask`` is one where an item has a mask.
        items: The training items, those held out included.
        outputs: What the stages made, by fingerprint.
        problems: What was left out, and why.
        notes: What one would want to know of items that are kept: enlarged, retimed, without words.
        memory: The memory policies that changed what a component encodes, as plain values by the component's name.
    """

    architecture: str
    dtype: str
    dataset: str
    stages: tuple[str, ...]
    items: tuple[CachedItem, ...]
    outputs: Mapping[str, Output]
    problems: tuple[Issue, ...] = ()
    notes: tuple[Issue, ...] = ()
    memory: Mapping[str, list[Plain]] = attrs.field(factory=dict)
    format: int = FORMAT

    @property
    def buckets(self) -> Mapping[str, int]:
        """How many items each bucket has, largest first."""
        return dict(Counter(cached.item.bucket_label for cached in self.items).most_common())

    @property
    def splits(self) -> Mapping[str, int]:
        """How many items are trained on, and how many held out."""
        return dict(Counter(cached.item.split for cached in self.items))

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
        """A hash of what training sees: its items, how each is drawn and weighted, and every entry's content."""
        parts = [[*_drawn(cached), self._contents(cached)] for cached in self.items if cached.item.split == "train"]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _contents(self, cached: CachedItem) -> list[object]:
        return [
            [stage, [[file.sha256 for file in self.outputs[print_].files] for print_ in prints]]
            for stage, prints in sorted(cached.outputs.items())
        ]


def _drawn(cached: CachedItem) -> tuple[object, ...]:
    item = cached.item
    return item.name, item.repeats, item.batch_size, item.dropout, item.weight


def exists(folder: Path) -> bool:
    """Return whether a folder holds a manifest."""
    return (folder / FILE).is_file()


def architecture_of(folder: Path) -> str | None:
    """Return whose cache a folder's manifest says it is, from its first bytes; None if it does not say so."""
    return _said_first(folder, "architecture")


def dtype_of(folder: Path) -> str | None:
    """Return what a folder's manifest says the encoders ran in, even if the rest of it is damaged."""
    return _said_first(folder, "dtype")


def memory_of(folder: Path) -> Mapping[str, list[Plain]]:
    """Return the policies that a folder's manifest says the encoders had, even if the rest of it is damaged."""
    try:
        with (folder / FILE).open("rb") as file:
            lines = file.read(_FIRST_BYTES).split(b",\n")
        found = [json.loads(line.removeprefix(_MEMORY)) for line in lines if line.startswith(_MEMORY)]
    except (OSError, ValueError):
        return {}
    return found[0] if found and isinstance(found[0], dict) else {}


def _said_first(folder: Path, name: str) -> str | None:
    try:
        with (folder / FILE).open("rb") as file:
            found = _BEGINNING.match(file.read(1000))
    except OSError:
        return None
    return None if found is None else found[name].decode(errors="replace")


def digest(folder: Path) -> str:
    """Return a hash of the manifest's file; empty if there is none."""
    try:
        return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    except OSError:
        return ""


def plain(manifest: Manifest) -> Plain:
    """Return a manifest as plain values."""
    outputs = (manifest.outputs[fingerprint] for fingerprint in sorted(manifest.outputs))
    return {
        "format": manifest.format,
        "architecture": manifest.architecture,
        "dtype": manifest.dtype,
        **({"memory": dict(manifest.memory)} if manifest.memory else {}),
        "dataset": manifest.dataset,
        "stages": list(manifest.stages),
        "items": list(map(item_line, manifest.items)),
        "outputs": list(map(output_line, outputs)),
        "problems": list(map(issue_line, manifest.problems)),
        "notes": list(map(issue_line, manifest.notes)),
    }


def save(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically."""
    save_plain(folder, plain(manifest))


def save_plain(folder: Path, values: Plain) -> None:
    """Write a manifest's plain values atomically: one line for each item and output. Equal ones give equal bytes."""
    parts = [
        f'"{name}":{_on_lines(value) if name in _LISTS else _ENCODER.encode(value)}' for name, value in values.items()
    ]
    writing.write(folder / FILE, ("{" + ",\n".join(parts) + "}\n").encode(errors="surrogateescape"))


def load(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        CacheError: There is none, or it is damaged or of another version.
    """
    try:
        return _manifest(read(folder))
    except _NO_MANIFEST as error:
        raise _damaged(folder / FILE, f"is not a manifest ({type(error).__name__})") from error


def read(folder: Path) -> Plain:
    """Return the plain values of a folder's manifest; what its lists hold is not looked at.

    Raises:
        CacheError: There is none, or it is damaged or of another version.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_bytes().decode(errors="surrogateescape"))
        form = values["format"]
    except FileNotFoundError:
        hint = "call .build(dataset) first"
        raise CacheError("not built yet", [Issue(shown(folder), "has no manifest", hint)]) from None
    except NotADirectoryError:
        hint = "give the folder of a cache, or a new one"
        raise CacheError("no cache", [Issue(shown(folder), "is a file, not a folder", hint)]) from None
    except (OSError, RecursionError, *_NO_MANIFEST) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    if form != FORMAT:
        raise _damaged(path, f"has format {form}, this version reads {FORMAT}")
    wrong = [name for name, kind in _FORM.items() if not isinstance(values.get(name), kind)]
    if wrong:
        raise _damaged(path, f"lacks {', '.join(wrong)}")
    return cast(Plain, values)


def _manifest(values: Plain) -> Manifest:
    outputs = {output.fingerprint: output for output in map(output_of, values["outputs"])}
    items = tuple(map(item_of, values["items"]))
    wanted = {fingerprint for item in items for prints in item.outputs.values() for fingerprint in prints}
    if not wanted <= outputs.keys():
        raise ValueError("an item has outputs that are not listed")
    return Manifest(
        architecture=values["architecture"],
        dtype=values["dtype"],
        dataset=values["dataset"],
        stages=tuple(map(str, values["stages"])),
        items=items,
        outputs=outputs,
        problems=tuple(map(issue_of, values["problems"])),
        notes=tuple(map(issue_of, values["notes"])),
        memory=dict(values.get("memory", {})),
    )


def _on_lines(values: Iterable[object]) -> str:
    return "[" + ",".join("\n" + _ENCODER.encode(value) for value in values) + "]"


def _damaged(path: Path, message: str) -> CacheError:
    hint = "build again: entries whose files are whole are kept"
    return CacheError("damaged manifest", [Issue(shown(path), message, hint)])
