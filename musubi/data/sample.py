"""The values between a file and a training item: what a source lists, what a file holds, what will be trained."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from musubi.architecture import Size

Kind = Literal["image", "video"]

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl"})
VIDEOS = frozenset({".mp4", ".webm", ".avi", ".mkv", ".mov", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg"})
UNREAD = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".psd", ".exr", ".ts", ".mts"})
"""Media by their names, but of formats that are not read: reported, never passed over in silence."""


_WINDOW = re.compile(r"_\d{5,}-\d{3,}$")


def kind_of(path: Path) -> Kind | None:
    """Return what a file is by its extension, upper or lower case; None for what is neither picture nor video."""
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        return "image"
    return "video" if suffix in VIDEOS else None


@attrs.frozen
class Window:
    """``count`` frames of a clip from frame ``start`` on; a still is ``Window(0, 1)``."""

    start: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.start:05d}-{self.count:03d}"


@attrs.frozen(kw_only=True)
class Record:
    """A media file, its caption and its conditioning files as a source lists them; ``place`` is what issues name."""

    path: Path
    caption: str
    place: str
    controls: Mapping[str, tuple[Path, ...]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Probe:
    """What a look into a media file tells: the size as shown, the number of frames and their rate (0: unknown)."""

    kind: Kind
    size: Size
    frames: int = 1
    fps: float = 0.0


@attrs.frozen(kw_only=True)
class Item:
    """One training item: a still, or one window of a clip, with its caption and its bucket.

    ``name`` is unique in a dataset, ``media`` is shared by all windows of a file; both are labels made of the file's
    stem. ``size`` is the file's own (width, height), ``bucket`` what it is resized and cropped to.
    """

    name: str
    media: str
    path: Path
    kind: Kind
    caption: str
    size: Size
    bucket: Size
    window: Window = Window()
    repeats: int = 1
    batch_size: int = 1
    controls: Mapping[str, tuple[Path, ...]] = attrs.field(factory=dict)

    @property
    def bucket_label(self) -> str:
        """The bucket as reports show it: ``832x480`` for stills, ``832x480x25`` for clips."""
        width, height = self.bucket
        return f"{width}x{height}" + (f"x{self.window.count}" if self.kind == "video" else "")


def labels(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a name for each file: its stem where that is unique, else stem and a short hash of what tells it apart.

    Names that differ only in case or in Unicode composition count as equal, because some file systems say so. A picture
    called like a window of a clip that is there too (``dog_00000-001.png`` beside ``dog.mp4``) gets a hash as well.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_folded(path.stem), []).append(path)
    clips = {_folded(path.stem) for path in paths if kind_of(path) == "video"}
    hashes = {stem: _hashes(group) for stem, group in groups.items() if len(group) > 1}
    return tuple(_label(path, hashes, clips) for path in paths)


def _label(path: Path, hashes: Mapping[str, dict[Path, list[str]]], clips: Collection[str]) -> str:
    stem = _folded(path.stem)
    if stem in hashes:
        return f"{path.stem}-{hashes[stem][path].pop(0)}"
    if kind_of(path) == "image" and _WINDOW.search(stem) and _WINDOW.sub("", stem) in clips:
        return f"{path.stem}-{_hash(path.name)}"
    return path.stem


def _hashes(group: Sequence[Path]) -> dict[Path, list[str]]:
    """Return, for each path of equal stems, the hash of its shortest tail that no other ends in; one for each mention.

    Moving the whole tree, or listing it in another order, changes no hash.
    """
    times = Counter(group)
    tails = Counter(tail for path in times for tail in _tails(path))
    told = {path: next((tail for tail in _tails(path) if tails[tail] == 1), path.as_posix()) for path in times}
    return {path: [_hash(f"{told[path]}#{n}") for n in range(count)] for path, count in times.items()}


def _tails(path: Path) -> list[str]:
    return ["/".join(path.parts[-n:]) for n in range(1, len(path.parts) + 1)]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
