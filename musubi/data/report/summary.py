"""The figures of a scan: how many, how large, how much is cut away, how long the captions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import attrs

from musubi.architecture import Size
from musubi.data.buckets import fit

if TYPE_CHECKING:
    from musubi.data.sample import Item
    from musubi.data.scan import Scan


@attrs.frozen
class Measured:
    """A file and a figure of it: the share that is cut away, or the factor by which it is enlarged."""

    path: Path
    value: float


@attrs.frozen
class Span:
    """The smallest, middle and largest of several figures."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Span | None:
        """Return the span of figures; None if there are none."""
        return cls(min(values), median(values), max(values)) if values else None


@attrs.frozen(kw_only=True)
class BucketFigures:
    """What is in a bucket; ``enlarged`` items are smaller than it, by ``enlargement`` at most and 1 if there are none.

    ``samples`` and ``batches`` are those of an epoch of training, repeats counted.
    """

    label: str
    size: Size
    train: int
    validation: int
    samples: int
    batches: int
    enlarged: int
    enlargement: float

    @property
    def items(self) -> int:
        """All items, held out or not."""
        return self.train + self.validation

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size[0] / self.size[1]


@attrs.frozen(kw_only=True)
class CaptionFigures:
    """How captions are: ``several`` counts the files that have more than one, ``dropout`` is the largest of any item.

    ``words`` and ``characters`` are of captions that are not ``blank``; None if all are.
    """

    count: int
    several: int
    blank: int
    words: Span | None
    characters: Span | None
    dropout: float


@attrs.frozen(kw_only=True)
class Summary:
    """The figures of a scan.

    Args:
        buckets: The largest first.
        pictures: How many files are pictures.
        clips: How many are clips; each may make several items.
        cut: The share of each file's area that the crop cuts away, worst first; of a file in several buckets, of each.
        enlarged: The files that are enlarged, and how many times, worst first.
        sizes: Files by their area in pixels, smallest first, with their (width, height).
        captions: Of all items, held out or not.
        repeats: The least and the most that an item is repeated in an epoch.
        batch_size: The largest batch size of any item.
        controls: How many conditioning files each item with any has.
        masks: How many items have a mask.
        weights: The weights of the items whose weight is not 1.
    """

    buckets: tuple[BucketFigures, ...]
    pictures: int
    clips: int
    cut: tuple[Measured, ...]
    enlarged: tuple[Measured, ...]
    sizes: tuple[tuple[Path, Size], ...]
    captions: CaptionFigures
    repeats: tuple[int, int]
    batch_size: int
    controls: tuple[int, ...]
    masks: int
    weights: tuple[float, ...]

    @classmethod
    def of(cls, scan: Scan) -> Summary:
        """Return the figures of a scan; reads no file."""
        items = scan.items
        kinds = {item.path: item.kind for item in items}
        placed = {(item.path, item.bucket): item for item in items}.values()
        held = [sum(map(len, item.controls.values())) for item in items]
        repeats = [item.repeats for item in items] or [1]
        return cls(
            buckets=_buckets(items),
            pictures=sum(kind == "image" for kind in kinds.values()),
            clips=sum(kind == "video" for kind in kinds.values()),
            cut=_worst(Measured(item.path, cut_share(item)) for item in placed),
            enlarged=_worst(Measured(item.path, enlargement(item)) for item in placed if enlargement(item) > 1),
            sizes=_by_area(items),
            captions=_captions(items),
            repeats=(min(repeats), max(repeats)),
            batch_size=max((item.batch_size for item in items), default=1),
            controls=tuple(number for number in held if number),
            masks=sum(item.mask is not None for item in items),
            weights=tuple(item.weight for item in items if item.weight != 1),
        )

    @property
    def train(self) -> int:
        """How many items are trained on."""
        return sum(bucket.train for bucket in self.buckets)

    @property
    def validation(self) -> int:
        """How many items are held out."""
        return sum(bucket.validation for bucket in self.buckets)

    @property
    def samples(self) -> int:
        """How many items an epoch sees, repeats counted."""
        return sum(bucket.samples for bucket in self.buckets)

    @property
    def batches(self) -> int:
        """How many batches an epoch has on one process; more if an architecture separates what has one shape."""
        return sum(bucket.batches for bucket in self.buckets)

    @property
    def mean_cut(self) -> float:
        """The mean share of a file's area that is cut away."""
        return fmean(file.value for file in self.cut) if self.cut else 0.0


def cut_share(item: Item) -> float:
    """Return the share of an item's picture, 0 to 1, that the crop to its bucket cuts away."""
    (width, height), (across, down) = fit(item.size, item.bucket).resized, item.bucket
    return 1 - across * down / (width * height)


def enlargement(item: Item) -> float:
    """Return how many times larger a picture gets on its way to the bucket; at most 1 if it is not enlarged."""
    return max(item.bucket[0] / item.size[0], item.bucket[1] / item.size[1])


def _buckets(items: Iterable[Item]) -> tuple[BucketFigures, ...]:
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(item.bucket_label, []).append(item)
    return tuple(sorted((_bucket(label, held) for label, held in grouped.items()), key=lambda b: (-b.items, b.label)))


def _bucket(label: str, items: Sequence[Item]) -> BucketFigures:
    trained = [item for item in items if item.split == "train"]
    scales = [scale for item in items if (scale := enlargement(item)) > 1]
    return BucketFigures(
        label=label,
        size=items[0].bucket,
        train=len(trained),
        validation=len(items) - len(trained),
        samples=sum(item.repeats for item in trained),
        batches=_batches(trained),
        enlarged=len(scales),
        enlargement=max(scales, default=1.0),
    )


def _batches(items: Iterable[Item]) -> int:
    """Count the batches of one bucket: only items with conditions of the same sizes share one."""
    samples: Counter[tuple[int, tuple[object, ...]]] = Counter()
    for item in items:
        shapes = tuple((role, tuple(c.bucket for c in held)) for role, held in sorted(item.controls.items()))
        samples[item.batch_size, shapes] += item.repeats
    return sum(-(-number // batch_size) for (batch_size, _), number in samples.items())


def _worst(files: Iterable[Measured]) -> tuple[Measured, ...]:
    return tuple(sorted(files, key=lambda file: (-file.value, file.path.as_posix())))


def _by_area(items: Iterable[Item]) -> tuple[tuple[Path, Size], ...]:
    sizes = {item.path: item.size for item in items}
    return tuple(sorted(sizes.items(), key=lambda file: (file[1][0] * file[1][1], file[0].as_posix())))


def _captions(items: Sequence[Item]) -> CaptionFigures:
    """Return the figures of captions, those of a clip counted once, whatever the number of its windows."""
    held = {item.media: item.captions for item in items}
    written = [caption for captions in held.values() for caption in captions]
    spoken = [caption for caption in written if caption.strip()]
    return CaptionFigures(
        count=len(written),
        several=sum(len(captions) > 1 for captions in held.values()),
        blank=len(written) - len(spoken),
        words=Span.of([len(caption.split()) for caption in spoken]),
        characters=Span.of([len(caption) for caption in spoken]),
        dropout=max((item.dropout for item in items), default=0.0),
    )
