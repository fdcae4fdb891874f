"""The figures of a scan in words: name and value, the same in a terminal, a notebook and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from musubi.data.report.places import Places
from musubi.data.report.summary import CaptionFigures, Span, Summary, cut_share, enlargement
from musubi.data.report.wording import between, counted, percent
from musubi.data.sample import Item

NO_CAPTION = "(no caption)"

_NAMED = 3
"""How many files a figure names."""


def facts(summary: Summary, places: Places) -> tuple[tuple[str, str], ...]:
    """Return what there is to say, in the order in which one asks for it."""
    return tuple(_facts(summary, places))


def fate(item: Item) -> str:
    """Return what becomes of an item's picture, e.g. ``832x480x25, 12 % cut, enlarged 1.30x``."""
    parts = [item.bucket_label]
    cut, scale = cut_share(item), enlargement(item)
    if cut > 0:
        parts.append(f"{percent(cut)} cut")
    if scale > 1:
        parts.append(f"enlarged {scale:.2f}x")
    return ", ".join(parts)


def _facts(summary: Summary, places: Places) -> Iterator[tuple[str, str]]:
    if not summary.buckets:
        return
    yield "files", _files(summary)
    yield "training", _training(summary)
    if summary.validation:
        share = summary.validation / (summary.train + summary.validation)
        yield "validation", f"{counted(summary.validation, 'item')} ({percent(share)})"
    yield "sizes", _sizes(summary, places)
    yield "cut away", _cut(summary, places)
    if summary.enlarged:
        worst = summary.enlarged[0]
        number = counted(len(summary.enlarged), "file")
        yield "enlarged", f"{number}, up to {worst.value:.2f} times ({places.name(worst.path)})"
    yield "captions", _captions(summary.captions)
    if summary.controls:
        each = between(min(summary.controls), max(summary.controls))
        yield "controls", f"{counted(len(summary.controls), 'item')}, {each} each"
    if summary.masks:
        yield "masks", counted(summary.masks, "item")
    if summary.weights:
        yield "weights", f"{between(min(summary.weights), max(summary.weights))} for {_items(summary.weights)}"


def _files(summary: Summary) -> str:
    kinds = [(summary.pictures, "picture"), (summary.clips, "clip")]
    return ", ".join(counted(number, kind) for number, kind in kinds if number)


def _training(summary: Summary) -> str:
    least, most = summary.repeats
    repeated = "" if most == 1 else f" (repeated {between(least, most)} times)"
    of = f" of up to {summary.batch_size}" if summary.batch_size > 1 else ""
    samples, batches = counted(summary.samples, "sample"), counted(summary.batches, "batch")
    return f"{counted(summary.train, 'item')}; in an epoch {samples}{repeated}, {batches}{of}"


def _sizes(summary: Summary, places: Places) -> str:
    (smallest, low), (largest, high) = summary.sizes[0], summary.sizes[-1]
    if low == high:
        return _times(low)
    return f"{_times(low)} ({places.name(smallest)}) to {_times(high)} ({places.name(largest)})"


def _cut(summary: Summary, places: Places) -> str:
    worst = [file for file in summary.cut[:_NAMED] if file.value > 0]
    if not worst:
        return "nothing"
    files = ", ".join(f"{places.name(file.path)} {percent(file.value)}" for file in worst)
    return f"{percent(summary.mean_cut)} of a picture on average; most of {files}"


def _captions(figures: CaptionFigures) -> str:
    parts = [f"{figures.count:,}" + _lengths(figures.words, figures.characters)]
    if figures.several:
        parts.append(f"{counted(figures.several, 'file')} with more than one")
    if figures.blank:
        parts.append(f"{figures.blank:,} blank")
    if figures.dropout:
        parts.append(f"left out in {percent(figures.dropout)} of draws")
    return "; ".join(parts)


def _lengths(words: Span | None, characters: Span | None) -> str:
    if words is None or characters is None:
        return ""
    found = [f"{_many(words, 'word')} (median {words.middle:g})", _many(characters, "character")]
    return f" of {', '.join(found)}"


def _many(span: Span, noun: str) -> str:
    return f"{between(span.least, span.most)} {noun if span.most == 1 else f'{noun}s'}"


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _items(values: Sequence[object]) -> str:
    return counted(len(values), "item")
