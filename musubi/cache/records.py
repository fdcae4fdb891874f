"""Items, outputs and issues as the plain values that a manifest's lines hold, and back.

Written out by hand, not by a converter: ten thousand items are read in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, TypeVar, cast

import attrs

from musubi.architecture import Size
from musubi.cache.format import SUFFIX
from musubi.core.errors import Issue
from musubi.data.report.places import Places
from musubi.data.sample import Control, Item, Window

T = TypeVar("T")
Plain = dict[str, Any]
"""A line of the manifest, as JSON has it."""


@attrs.frozen(kw_only=True)
class CachedFile:
    """A file of the cache: its size, checksum and the batch key of its tensors."""

    name: str
    bytes: int
    sha256: str
    key: str


@attrs.frozen(kw_only=True)
class Output:
    """What one stage made of one item or caption; ``fingerprint`` tells everything that went into it.

    Several files are the parts of an item, e.g. the sections of a clip, in order.
    """

    stage: str
    fingerprint: str
    files: tuple[CachedFile, ...]


@attrs.frozen(kw_only=True)
class CachedItem:
    """A training item and, for each stage, the fingerprints of the outputs of which a draw takes one; items share them.

    A stage that reads captions has one for each of ``item.captions``, in order, and behind them the blank caption's if
    ``item.dropout > 0``. Another stage has exactly one; a stage that has nothing to do for the item is left out.
    """

    item: Item
    outputs: Mapping[str, tuple[str, ...]]


def item_line(cached: CachedItem) -> Plain:
    """Return an item as plain values; what equals its default is left out."""
    return {**_of_item(cached.item), "outputs": {stage: list(prints) for stage, prints in cached.outputs.items()}}


def output_line(output: Output) -> Plain:
    """Return an output as plain values."""
    files = [[file.name, file.bytes, file.sha256, file.key] for file in output.files]
    return {"stage": output.stage, "fingerprint": output.fingerprint, "files": files}


def issue_line(issue: Issue) -> list[str]:
    """Return an issue as plain values, absolute paths shortened wherever they stand."""
    return [shareable(issue.path), Places().within(issue.message), Places().within(issue.hint)]


def item_of(line: Plain) -> CachedItem:
    """Return what ``item_line`` made a line of; raises ``ValueError``, ``TypeError``, ``KeyError`` or the like."""
    outputs = _checked(line["outputs"], dict)
    return CachedItem(
        item=_item(line), outputs={_text(stage): _texts(prints, least=1) for stage, prints in outputs.items()}
    )


def output_of(line: Plain) -> Output:
    """Return what ``output_line`` made a line of; raises as ``item_of`` does."""
    files = tuple(_file(*values) for values in _checked(line["files"], list))
    if not files:
        raise ValueError("an output has no file")
    return Output(stage=_text(line["stage"]), fingerprint=_text(line["fingerprint"]), files=files)


def is_output_line(line: Any) -> bool:
    """Return whether a line is one of an output, without making one: a build only carries lines over."""
    try:
        files = [(type(name), type(size), type(sha256), type(key)) for name, size, sha256, key in line["files"]]
        return bool(files) and set(files) == {_FILE_TYPES} and {type(line["stage"]), type(line["fingerprint"])} == {str}
    except (KeyError, TypeError, ValueError):
        return False


def issue_of(line: object) -> Issue:
    """Return what ``issue_line`` made a line of; raises as ``item_of`` does."""
    path, message, hint = _texts(line)
    return Issue(path, message, hint)


def shareable(path: Path | str) -> str:
    """Return a path as an artefact may hold it: as the user wrote it, but of an absolute one the name alone."""
    written = path if isinstance(path, Path) else Path(path)
    return written.name if written.is_absolute() else written.as_posix()


_FILE_TYPES = (str, int, str, str)
_OPTIONAL: Mapping[str, Callable[[Any], object]] = MappingProxyType(
    {
        "dropout": float,
        "window": lambda window: [window.start, window.count],
        "picked": list,
        "repeats": int,
        "batch_size": int,
        "controls": lambda controls: {role: [_of_control(c) for c in files] for role, files in controls.items()},
        "mask": shareable,
        "weight": float,
        "split": str,
    }
)
_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {a.name: {} if a.name == "controls" else a.default for a in attrs.fields(Item) if a.name in _OPTIONAL}
)


def _of_item(item: Item) -> Plain:
    values: Plain = {
        "name": item.name,
        "media": item.media,
        "path": shareable(item.path),
        "kind": item.kind,
        "captions": list(item.captions),
        "size": list(item.size),
        "bucket": list(item.bucket),
    }
    for name, plain in _OPTIONAL.items():
        value = getattr(item, name)
        if value != _DEFAULTS[name]:
            values[name] = plain(value)
    return values


def _of_control(control: Control) -> list[object]:
    return [shareable(control.path), *control.bucket]


def _item(line: Plain) -> Item:
    mask, split = line.get("mask"), line.get("split", "train")
    if line["kind"] not in {"image", "video"} or split not in {"train", "validation"}:
        raise ValueError(f"unknown kind or split: {line['kind']}, {split}")
    return Item(
        name=_text(line["name"]),
        media=_text(line["media"]),
        path=_path(line["path"]),
        kind=line["kind"],
        captions=_texts(line["captions"], least=1),
        size=_size(line["size"]),
        bucket=_size(line["bucket"]),
        dropout=float(line.get("dropout", 0.0)),
        window=Window(*map(int, line.get("window", (0, 1)))),
        picked=tuple(map(int, line.get("picked", ()))),
        repeats=int(line.get("repeats", 1)),
        batch_size=int(line.get("batch_size", 1)),
        controls={role: tuple(_control(*c) for c in files) for role, files in line.get("controls", {}).items()},
        mask=None if mask is None else _path(mask),
        weight=float(line.get("weight", 1.0)),
        split=split,
    )


def _control(path: object, *bucket: int) -> Control:
    return Control(path=_path(path), bucket=_size(bucket))


def _file(name: object, size: object, sha256: object, key: object) -> CachedFile:
    """Return a file; its name may lead nowhere but into the cache's own folder."""
    plain = _text(name)
    if Path(plain).name != plain or not plain.endswith(SUFFIX):
        raise ValueError(f"{plain} is not the name of a file in the folder")
    return CachedFile(name=plain, bytes=_checked(size, int), sha256=_text(sha256), key=_text(key))


def _size(values: Iterable[object]) -> Size:
    width, height = values
    return _checked(width, int), _checked(height, int)


def _path(value: object) -> Path:
    return Path(PurePosixPath(_text(value)))


def _texts(values: object, *, least: int = 0) -> tuple[str, ...]:
    texts = tuple(map(_text, _checked(values, list)))
    if len(texts) < least:
        raise ValueError("an empty list")
    return texts


def _text(value: object) -> str:
    return _checked(value, str)


def _checked(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected, got {type(value).__name__}")
    return cast(T, value)  # type: ignore[redundant-cast]  # pyright takes list for list[Unknown]
