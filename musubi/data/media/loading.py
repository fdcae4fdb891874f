"""Media files to samples: pictures and clips are decoded, and every frame is resized once, from its own size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from musubi.architecture import Size
from musubi.batch import Sample
from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.blame import blamed
from musubi.data.media.images import probe_image, read_image, read_mask
from musubi.data.media.masks import fitted, read_masks
from musubi.data.media.passes import Passes
from musubi.data.media.resize import to_bucket
from musubi.data.media.video import probe_clip, read_clip
from musubi.data.sample import Item, Kind, Probe, kind_of

if TYPE_CHECKING:
    from torch import Tensor

_Windows = Sequence[Sequence[int]]
_Opened = Callable[[_Windows], Passes]


def probe(path: Path) -> Probe:
    """Return what a picture, a clip or a folder of frames is, without decoding more than a first frame.

    Raises:
        DataError: The file cannot be read.
    """
    return probe_image(path) if _kind(path) == "image" else probe_clip(path)


def load_sample(item: Item, *, pixels: bool = True, controls: bool = True, mask: bool = True) -> Sample:
    """Decode an item: uint8 pixels of shape (frames, height, width, 3) in its bucket, and what belongs to it.

    Each conditioning file comes in the bucket of its own, the mask, of shape (frames, height, width), in the item's. Of
    those that are clips the same frames are taken; where they end early their last one stands. Of stills there is one.
    The caption is the item's first.

    Raises:
        DataError: A file cannot be read, or the item's ends before the window does.
    """
    return Samples([item], pixels=pixels, controls=controls, mask=mask).load(item)


def load_originals(item: Item) -> Mapping[str, tuple[Tensor, ...]]:
    """Decode an item's conditioning pictures as their files have them: uint8 (1, height, width, 3), by role.

    Of a clip it is the first frame.

    Raises:
        DataError: A file cannot be read.
    """
    with blamed(shown(item.path), "control"):
        return {role: tuple(_original(file.path) for file in files) for role, files in item.controls.items()}


def _original(path: Path) -> Tensor:
    import torch

    frame = read_image(path) if _kind(path) == "image" else next(iter(read_clip(path, [0])))
    return torch.tensor(frame)[None]


def load_pixels(path: Path, *, frames: Sequence[int], bucket: Size) -> Tensor:
    """Return uint8 pixels of shape (frames, height, width, 3): the clip's own ``frames``, or the one of a still.

    Memory is taken for the result and one frame.

    Args:
        path: A picture, a clip or a folder of frames.
        frames: Ascending numbers; one that repeats is decoded and resized once.
        bucket: The (width, height) to resize and crop to.

    Raises:
        DataError: The file cannot be read, or ends before the last frame.
    """
    return _pixels(path, bucket)([frames]).load(0)


def load_mask(path: Path, *, frames: Sequence[int], size: Size, bucket: Size) -> Tensor:
    """Return a mask as uint8 of shape (frames, height, width), or of one frame where it is a still.

    Args:
        path: A picture, a clip or a folder of frames; a clip that ends early stays at its last frame.
        frames: The frames that are masked.
        size: The (width, height) of the file that is masked; a mask of another size is stretched to it first.
        bucket: What that file is resized and cropped to, and the mask with it.

    Raises:
        DataError: The file cannot be read.
    """
    return _Companion(path, [frames], _mask(path, size, bucket)).load(0)


class Samples:
    """Decode many items; windows of one clip that follow one another are read in one pass.

    Items of different files may be loaded by different threads at a time, those of one file may not.

    Args:
        items: All that will be loaded, in the order in which it is quick.
        pixels: Whether to load the items' own files.
        controls: Whether to load their conditioning files.
        mask: Whether to load their masks.
    """

    def __init__(self, items: Sequence[Item], *, pixels: bool = True, controls: bool = True, mask: bool = True) -> None:
        self._runs = [list(run) for _, run in groupby(items, key=_belongings)]
        self._places = {
            item.name: (run, place) for run, same in enumerate(self._runs) for place, item in enumerate(same)
        }
        self._parts = (pixels, controls, mask)
        self._open: dict[int, _File] = {}

    def load(self, item: Item) -> Sample:
        """Decode one of the items, as ``load_sample`` does.

        Raises:
            DataError: A file cannot be read, or the item's ends before the window does; the others still may be read.
        """
        run, place = self._places[item.name]
        if run not in self._open:
            self._open[run] = _File(self._runs[run], *self._parts)
        try:
            return self._open[run].load(item, place)
        finally:
            if place == len(self._runs[run]) - 1:
                self._open.pop(run, None)


class _File:
    """The windows of one file, with those of its conditioning files and of its mask."""

    def __init__(self, items: Sequence[Item], pixels: bool, controls: bool, mask: bool) -> None:
        item, windows = items[0], [item.frames for item in items]
        roles = item.controls if controls else {}
        self._pixels = _pixels(item.path, item.bucket)(windows) if pixels else None
        self._controls = {
            role: tuple(_Companion(file.path, windows, _pixels(file.path, file.bucket)) for file in files)
            for role, files in roles.items()
        }
        masked = item.mask if mask else None
        self._mask = masked and _Companion(masked, windows, _mask(masked, item.size, item.bucket))

    def load(self, item: Item, place: int) -> Sample:
        pixels = self._pixels.load(place) if self._pixels else None
        with blamed(shown(item.path), "control"):
            controls = {role: tuple(file.load(place) for file in files) for role, files in self._controls.items()}
        with blamed(shown(item.path), "mask"):
            mask = self._mask.load(place) if self._mask else None
        return Sample(name=item.name, caption=item.captions[0], pixels=pixels, controls=controls, mask=mask)


class _Companion:
    """The windows of a file beside the item's own. Where it ends early, its last frame stands."""

    def __init__(self, path: Path, windows: _Windows, opened: _Opened) -> None:
        self._path, self._windows, self._opened = path, windows, opened
        self._passes = opened(windows)

    def load(self, place: int) -> Tensor:
        try:
            return self._passes.load(place)
        except DataError:
            last = probe(self._path).frames - 1
            if self._windows[place][-1] <= last:
                raise
            self._windows = [[min(number, last) for number in window] for window in self._windows]
            self._passes = self._opened(self._windows)
            return self._passes.load(place)


def _pixels(path: Path, bucket: Size) -> _Opened:
    """Return what opens a file for its frames in a bucket; a still is one frame, whatever the windows."""

    def opened(windows: _Windows) -> Passes:
        still = _kind(path) == "image"
        return Passes(
            [(0,)] * len(windows) if still else windows,
            read=lambda frames: [read_image(path)] if still else read_clip(path, frames),
            resize=lambda frame: to_bucket(frame, bucket),
            shape=(bucket[1], bucket[0], 3),
        )

    return opened


def _mask(path: Path, size: Size, bucket: Size) -> _Opened:
    """Return what opens a mask of a file of a size for its frames in the file's bucket."""

    def opened(windows: _Windows) -> Passes:
        still = _kind(path) == "image"
        return Passes(
            [(0,)] * len(windows) if still else windows,
            read=lambda frames: [read_mask(path)] if still else read_masks(path, frames),
            resize=lambda mask: fitted(mask, size=size, bucket=bucket),
            shape=(bucket[1], bucket[0]),
        )

    return opened


def _belongings(item: Item) -> tuple[object, ...]:
    """Return what windows of one file have in common."""
    return item.path, item.size, item.bucket, item.controls, item.mask


def _kind(path: Path) -> Kind:
    kind = "video" if path.is_dir() else kind_of(path)
    if kind is None:
        hint = "convert it to PNG or MP4"
        raise DataError("cannot read", [Issue(shown(path), "this format is not read", hint)])
    return kind
