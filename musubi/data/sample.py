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
Split = Literal["train", "validation"]

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl"})
VIDEOS = frozenset({".mp4", ".webm", ".avi", ".mkv", ".mov", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg"})
UNREAD = frozenset(
    {
        *(".gif", ".tif", ".tiff", ".heic", ".heif", ".psd", ".exr", ".jfif", ".jp2", ".tga", ".ppm", ".svg", ".ico"),
        *(".apng", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
        *(".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".vob", ".mxf", ".gifv", ".asf", ".f4v", ".rm", ".rmvb"),
    }
)
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
    """A media file with what belongs to it, as a source lists it; ``place`` is what issues name.

    ``path`` is a picture, a clip or a folder of frames. ``captions`` are those to choose from; none is missing, and
    ``remedy`` says where one was looked for. ``controls`` are conditioning files by role, ``mask`` tells where the loss
    counts, ``weight`` how much.
    """

    path: Path
    captions: tuple[str, ...]
    place: str
    remedy: str = ""
    controls: Mapping[str, tuple[Path, ...]] = attrs.field(factory=dict)
    mask: Path | None = None
    weight: float = 1.0


@attrs.frozen(kw_only=True)
class Probe:
    """What a look into a media file tells: the size as shown, the number of frames and their rate (0: unknown).

    ``times`` are the seconds from the first frame to each, in ascending order, where frames are not evenly spaced;
    empty where they are: then frame i is shown at ``i / fps``. A ``cut`` file ends before its frames do; those that are
    there can be used.
    """

    kind: Kind
    size: Size
    frames: int = 1
    fps: float = 0.0
    times: tuple[float, ...] = ()
    cut: bool = False


@attrs.frozen(kw_only=True)
class Control:
    """A conditioning file and the (width, height) it is resized and cropped to."""

    path: Path
    bucket: Size


@attrs.frozen(kw_only=True)
class Item:
    """One training item: a still, or one window of a clip, with its captions and its bucket.

    ``name`` is unique in a dataset, ``media`` is shared by all windows of a file; both are labels made of the file's
    stem. ``size`` is the file's own (width, height), ``bucket`` what it is resized and cropped to.

    Args:
        captions: At least one; which of them is trained with is drawn anew in each epoch.
        dropout: The share of draws in which the caption is blank instead.
        window: The frames in the clip as it is after its rate was changed.
        picked: The file's own frame for each frame of the window; empty where these are the same numbers.
        controls: Conditioning files by role.
        mask: A picture or clip that tells where the loss counts (white) and where it does not (black).
        weight: What the item's loss is multiplied by.
        split: Whether the item is trained on or held out.
    """

    name: str
    media: str
    path: Path
    kind: Kind
    captions: tuple[str, ...]
    size: Size
    bucket: Size
    dropout: float = 0.0
    window: Window = Window()
    picked: tuple[int, ...] = ()
    repeats: int = 1
    batch_size: int = 1
    controls: Mapping[str, tuple[Control, ...]] = attrs.field(factory=dict)
    mask: Path | None = None
    weight: float = 1.0
    split: Split = "train"

    @property
    def bucket_label(self) -> str:
        """The bucket as reports show it: ``832x480`` for stills, ``832x480x25`` for clips."""
        width, height = self.bucket
        return f"{width}x{height}" + (f"x{self.window.count}" if self.kind == "video" else "")

    @property
    def frames(self) -> tuple[int, ...]:
        """The file's own frames that make up the window, in order; a slow clip shows some of them twice."""
        return self.picked or tuple(range(self.window.start, self.window.start + self.window.count))


def labels(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return a name for each file: its stem where that is unique, else stem and a short hash of what tells it apart.

    Names that differ only in case or in Unicode composition count as equal, because some file systems say so. A picture
    called like a window of a clip that is there too (``dog_00000-001.png`` beside ``dog.mp4``) gets a hash as well.
    """
    stems = [_stem(path) for path in paths]
    folded = [_folded(stem) for stem in stems]
    groups: dict[str, list[Path]] = {}
    for path, key in zip(paths, folded, strict=True):
        groups.setdefault(key, []).append(path)
    clips = {key for path, key in zip(paths, folded, strict=True) if kind_of(path) != "image"}
    hashes = {key: _hashes(group) for key, group in groups.items() if len(group) > 1}
    return tuple(
        f"{stem}-{hashes[key][path].pop(0)}" if key in hashes else _unless_window(path, stem, key, clips)
        for path, stem, key in zip(paths, stems, folded, strict=True)
    )


def _unless_window(path: Path, stem: str, key: str, clips: Collection[str]) -> str:
    """Return a file's stem, with a hash if it is a picture that is called like a window of a clip."""
    if clips and kind_of(path) == "image" and _WINDOW.search(key) and _WINDOW.sub("", key) in clips:
        return f"{stem}-{_hash(path.name)}"
    return stem


def _stem(path: Path) -> str:
    """Return the stem of a media file; what is none by its name is a folder of frames: ``walk v1.5`` is all name."""
    return path.stem if kind_of(path) is not None else path.name


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
