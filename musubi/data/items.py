"""From a record to the items that are trained: its bucket, its windows, its conditions; or why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import attrs

from musubi.architecture import Size
from musubi.core.errors import DataError, Issue
from musubi.data.buckets import Buckets
from musubi.data.media.blame import blamed
from musubi.data.report.wording import counted
from musubi.data.sample import Control, Item, Probe, Record, Window

if TYPE_CHECKING:
    from musubi.data.dataset import Dataset

_CONTROL = "control"
_SAME_SHAPE = 0.02
"""How far, in parts, the aspect ratios of a picture and its mask may be apart: rounding of small sizes."""


class Probes(Protocol):
    """Looks into media files, or remembers what was seen in them."""

    def probe(self, path: Path) -> Probe:
        """Return what a file holds; raises ``DataError``."""
        ...


@attrs.frozen(kw_only=True)
class Found:
    """The items of one file, and what a person should know of them."""

    items: tuple[Item, ...]
    notes: tuple[Issue, ...] = ()


def find_items(dataset: Dataset, record: Record, media: str, probes: Probes) -> Found:
    """Return a picture's item, or one for each window of a clip.

    Raises:
        DataError: The file, its captions or its conditions cannot be used.
    """
    captions = _captions(dataset, record)
    given = _given_controls(dataset, record)
    seen = probes.probe(record.path)
    bucket = _bucket(dataset, record, seen.size)
    sized = partial(_control, dataset, record, target=seen, bucket=bucket, probes=probes)
    controls = {role: tuple(map(sized, paths)) for role, paths in given.items()}
    if record.mask is not None:
        _check_mask(record, record.mask, seen, probes)
    picked, windows = _windows(dataset, record, seen)
    items = tuple(
        Item(
            name=media if seen.kind == "image" else f"{media}_{window}",
            media=media,
            path=record.path,
            kind=seen.kind,
            captions=captions,
            dropout=dataset.captions.dropout,
            size=seen.size,
            bucket=bucket,
            window=window,
            picked=_picked(picked, window),
            repeats=dataset.repeats,
            batch_size=dataset.batch_size,
            controls=controls,
            mask=record.mask,
            weight=record.weight,
        )
        for window in windows
    )
    return Found(items=items, notes=tuple(_notes(dataset, record, seen, items)))


def _captions(dataset: Dataset, record: Record) -> tuple[str, ...]:
    written = record.captions
    if not written:
        if dataset.captions.missing == "report":
            raise _dropped(record, "caption is missing", record.remedy or "give it a caption")
        written = ("",)
    return dataset.captions.variants(written)


def _given_controls(dataset: Dataset, record: Record) -> dict[str, tuple[Path, ...]]:
    """Return the conditioning files, as many as the dataset wants."""
    wanted = dataset.control_count
    files = record.controls.get(_CONTROL, ())
    if dataset.control == "required" and not files:
        raise _dropped(record, "control missing", "add a conditioning file to it, or drop with_control()")
    if wanted is not None and files and len(files) < wanted:
        names = ", ".join(path.name for path in files)
        raise _dropped(record, "too few controls", f"{wanted} are wanted, it has {len(files)}: {names}")
    return {role: paths[:wanted] if role == _CONTROL else paths for role, paths in record.controls.items() if paths}


def _bucket(dataset: Dataset, record: Record, size: Size) -> Size:
    step = dataset.geometry.multiple
    buckets = Buckets(
        resolution=dataset.resolution, step=step, enabled=dataset.bucketing, no_upscale=dataset.no_upscale
    )
    bucket = buckets.choose(size)
    if 0 in bucket:
        hint = f"{size[0]}x{size[1]} has a side below {step} pixels; allow upscaling or replace it"
        raise _dropped(record, "too small", hint)
    return bucket


def _control(dataset: Dataset, record: Record, path: Path, *, target: Probe, bucket: Size, probes: Probes) -> Control:
    """Return a conditioning file with its size; beside a clip it always has the clip's."""
    seen = _seen(record, "control", path, probes)
    if seen.kind == "video" and target.kind == "image":
        raise _dropped(record, "control is a clip", f"a picture takes pictures as controls, got {path.name}")
    if target.kind == "video":
        return Control(path=path, bucket=bucket)
    own = dataset.control_size.choose(seen.size, target=bucket, step=dataset.geometry.multiple)
    return Control(path=path, bucket=own)


def _check_mask(record: Record, mask: Path, seen: Probe, probes: Probes) -> None:
    found = _seen(record, "mask", mask, probes)
    if found.kind == "video" and seen.kind == "image":
        raise _dropped(record, "mask is a clip", f"a picture takes a picture as mask, got {mask.name}")
    ratio = (found.size[0] * seen.size[1]) / (found.size[1] * seen.size[0])
    if abs(ratio - 1) > _SAME_SHAPE:
        sizes = f"{mask.name} is {found.size[0]}x{found.size[1]}, its picture {seen.size[0]}x{seen.size[1]}"
        raise _dropped(record, "mask has another shape", f"{sizes}; draw it at the picture's size")


def _seen(record: Record, what: str, path: Path, probes: Probes) -> Probe:
    with blamed(record.place, what):
        return probes.probe(path)


def _windows(dataset: Dataset, record: Record, seen: Probe) -> tuple[Sequence[int], Sequence[Window]]:
    """Return which of a clip's own frames are shown at the wanted rate, and the windows of those."""
    if seen.kind == "image":
        return range(1), (Window(),)
    if not dataset.geometry.video:
        raise _dropped(record, "clips are not trained", "this architecture makes single pictures; export frames as PNG")
    shown = dataset.rate.frames(seen, fps=dataset.geometry.fps)
    step = dataset.geometry.frame_step
    windows = dataset.windows.cut(len(shown), dataset.frames, step=step)
    if not windows and dataset.keep_short and shown:
        windows = (Window(0, (len(shown) - 1) // step * step + 1),)
    if not windows:
        wanted = ", ".join(map(str, dataset.frames))
        had = f"has {counted(len(shown), 'frame')}" + (
            f" at {dataset.geometry.fps:g} fps" if len(shown) != seen.frames else ""
        )
        raise _dropped(record, "too short", f"{had}, wanted are {wanted}; add a shorter length, or keep_short=True")
    return shown, windows


def _picked(shown: Sequence[int], window: Window) -> tuple[int, ...]:
    """Return the file's own frames of a window, or nothing where they are just the window's numbers."""
    chosen = tuple(shown[window.start : window.start + window.count])
    return () if chosen == tuple(range(window.start, window.start + window.count)) else chosen


def _notes(dataset: Dataset, record: Record, seen: Probe, items: Sequence[Item]) -> Iterator[Issue]:
    """Yield what does not keep a file from being trained, but that one would want to know."""
    (width, height), (across, down) = seen.size, items[0].bucket
    scale = max(across / width, down / height)
    if scale > 1:
        size = f"{width}x{height} to {across}x{down}, {scale:.2f} times"
        yield Issue(record.place, "enlarged", f"{size}; take a larger original, or no_upscale=True")
    if seen.cut:
        yield Issue(record.place, "is truncated", f"its first {seen.frames} frames are used; copy or export it again")
    if any(item.picked for item in items):
        twice = "; frames are shown twice" if any(len(set(i.picked)) < len(i.picked) for i in items) else ""
        yield Issue(record.place, "retimed", f"plays at {seen.fps:.4g} fps, is trained at {_rate(dataset):.4g}{twice}")
    if not all(item.strip() for item in items[0].captions):
        yield Issue(record.place, "caption is empty", "it is trained without words; write one if that is not meant")


def _rate(dataset: Dataset) -> float:
    return float(getattr(dataset.rate, "fps", None) or dataset.geometry.fps)


def _dropped(record: Record, message: str, hint: str, /) -> DataError:
    return DataError("dropped", [Issue(record.place, message, hint)])
