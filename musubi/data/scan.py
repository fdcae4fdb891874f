"""Looking at a dataset's files without training on them: which items there are, and what was dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import DataError, Issue
from musubi.core.events import Callback, Progress
from musubi.data.buckets import Buckets
from musubi.data.media import probe
from musubi.data.sample import Item, Probe, Record, Window, labels
from musubi.data.sources import read_all

if TYPE_CHECKING:
    from musubi.data.dataset import Dataset
    from musubi.data.report import Report


def _number(values: Sized) -> str:
    """Show how many there are: thousands of items would fill a notebook."""
    return f"<{len(values)}>"


@attrs.frozen(kw_only=True)
class Scan:
    """What a dataset holds: the items that would be trained, and an issue for everything that would not."""

    items: tuple[Item, ...] = attrs.field(repr=_number)
    dropped: tuple[Issue, ...] = attrs.field(default=(), repr=_number)

    @property
    def buckets(self) -> Mapping[str, int]:
        """How many items each bucket has, largest bucket first, e.g. ``{"832x480x25": 120}``."""
        return dict(Counter(item.bucket_label for item in self.items).most_common())

    def report(self) -> Report:
        """Return the scan in words, as a card and as figures."""
        from musubi.data.report import Report

        return Report(scan=self)

    def __len__(self) -> int:
        return len(self.items)

    def _repr_html_(self) -> str:
        return self.report()._repr_html_()  # pyright: ignore[reportPrivateUsage]


def scan(dataset: Dataset, *, on: Sequence[Callback] = ()) -> Scan:
    """Return the items of a dataset in the order of its sources; raises ``DataError`` if a source cannot be read."""
    listing = read_all(dataset.sources)
    names = labels([record.path for record in listing.records])
    items: list[Item] = []
    dropped = list(listing.issues)
    for done, (record, name) in enumerate(zip(listing.records, names, strict=True), start=1):
        try:
            items += _items(dataset, record, name)
        except DataError as error:
            dropped += error.issues
        for callback in on:
            callback(Progress(task="scan", done=done, total=len(names), detail=name))
    return Scan(items=tuple(items), dropped=tuple(dropped))


def _items(dataset: Dataset, record: Record, media: str) -> Iterator[Item]:
    """Yield a picture's item, or one for each window of a clip; raises ``DataError`` if there is none."""
    if dataset.control == "required" and not record.controls:
        raise _dropped(record, "control missing", "add a conditioning file to it, or drop with_control()")
    seen = probe(record.path, horizon=dataset.windows.horizon(dataset.frames))
    bucket = Buckets(
        resolution=dataset.resolution,
        step=dataset.geometry.multiple,
        enabled=dataset.bucketing,
        no_upscale=dataset.no_upscale,
    ).choose(seen.size)
    if 0 in bucket:
        width, height = seen.size
        hint = f"{width}x{height} has a side below {dataset.geometry.multiple} pixels; allow upscaling or replace it"
        raise _dropped(record, "too small", hint)
    for window in _windows(dataset, record, seen):
        yield Item(
            name=media if seen.kind == "image" else f"{media}_{window}",
            media=media,
            path=record.path,
            kind=seen.kind,
            caption=record.caption,
            size=seen.size,
            bucket=bucket,
            window=window,
            repeats=dataset.repeats,
            batch_size=dataset.batch_size,
            controls=record.controls,
        )


def _windows(dataset: Dataset, record: Record, seen: Probe) -> Sequence[Window]:
    if seen.kind == "image":
        return (Window(),)
    if not dataset.geometry.video:
        raise _dropped(record, "clips are not trained", "this architecture makes single pictures; export frames as PNG")
    windows = dataset.windows.cut(seen.frames, dataset.frames)
    if not windows:
        wanted = ", ".join(map(str, dataset.frames))
        hint = f"has {seen.frames} frames, wanted are {wanted}; add a shorter length to frames"
        raise _dropped(record, "too short", hint)
    return windows


def _dropped(record: Record, message: str, hint: str) -> DataError:
    return DataError("dropped", [Issue(record.place, message, hint)])
