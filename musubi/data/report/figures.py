"""A scan as matplotlib figures: items by bucket, and a sheet of pictures as they are cropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, did_you_mean
from musubi.core.figures import new_figure
from musubi.data.report.facts import NO_CAPTION, fate
from musubi.data.report.summary import BucketFigures
from musubi.data.report.thumbnails import spread, thumbnail
from musubi.data.report.wording import beginning, counted
from musubi.data.sample import Item

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font

_BARS = 60
"""How many buckets a histogram shows before it adds up the smallest."""

_TRAINED, _HELD_OUT = "tab:blue", "tab:orange"
_FALLBACKS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "WenQuanYi Zen Hei",
)
"""Fonts with what matplotlib's own lacks, where a system has them."""

_SIDE, _CAPTION = 320, 34
"""The longer side, in pixels, of the sheet's pictures, and how many characters of a caption stand over each."""


def histogram(buckets: Sequence[BucketFigures]) -> Figure:
    """Return a figure of how many items each bucket has, those held out on top of those trained on.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    bars = _bars(buckets)
    figure = new_figure(7.0, 1.3 + 0.22 * max(2, len(bars)))
    axes = figure.add_subplot()
    labels = [bar.label for bar in bars]
    trained, held_out = [bar.train for bar in bars], [bar.validation for bar in bars]
    axes.barh(labels, trained, color=_TRAINED, height=0.75, label="training")
    if any(held_out):
        axes.barh(labels, held_out, left=trained, color=_HELD_OUT, height=0.75, label="validation")
        figure.legend(frameon=False, loc="outside lower center", ncols=2)
    totals = [one + other for one, other in zip(trained, held_out, strict=True)]
    for place, total in enumerate(totals):
        axes.annotate(f"{total:,}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_ylim(max(len(bars), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.1 * max(totals, default=1))
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("items")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{counted(sum(totals), 'item')} in {counted(len(buckets), 'bucket')}")
    return figure


def contact_sheet(items: Sequence[Item], *, columns: int, rows: int, bucket: str | None = None) -> Figure:
    """Return a figure of pictures from all buckets, or from one; what the crop cuts away is faded.

    Over each stand its caption's beginning, its bucket, and how much is cut away and enlarged; of a clip the first
    frame is shown, and how many there are.

    Raises:
        ConfigError: There is no such bucket, a number is below 1, or matplotlib is not installed.
    """
    _check(columns=columns, rows=rows)
    shown = spread(_of_bucket(items, bucket), columns * rows)
    columns = min(columns, max(1, len(shown)))
    used = max(1, -(-len(shown) // columns))
    figure = new_figure(2.2 * columns, 2.6 * used)
    fonts = _fonts()
    for place, item in enumerate(shown, start=1):
        axes = figure.add_subplot(used, columns, place)
        axes.set_axis_off()
        axes.set_anchor("N")
        pixels = thumbnail(item, side=_SIDE)
        if pixels is None:
            axes.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=7)
        else:
            axes.imshow(pixels)
        if item.kind == "video":
            box = {"facecolor": _HELD_OUT, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
            frames = counted(item.window.count, "frame")
            axes.text(0.03, 0.96, frames, fontsize=7, va="top", transform=axes.transAxes, bbox=box)
        caption = _legible(beginning(item.captions[0], _CAPTION) or NO_CAPTION, fonts)
        title = axes.set_title(f"{caption}\n{fate(item)}", fontsize=7, fontfamily=list(fonts))
        title.set_parse_math(False)
    return figure


@attrs.frozen
class _Bar:
    label: str
    train: int
    validation: int


def _bars(buckets: Sequence[BucketFigures]) -> list[_Bar]:
    """Return a bar for each bucket; one for all of the smallest if there are too many."""
    bars = [_Bar(bucket.label, bucket.train, bucket.validation) for bucket in buckets]
    if len(bars) <= _BARS:
        return bars
    rest = bars[_BARS - 1 :]
    others = _Bar(f"{len(rest):,} others", sum(bar.train for bar in rest), sum(bar.validation for bar in rest))
    return [*bars[: _BARS - 1], others]


def _check(**numbers: int) -> None:
    wrong = [Issue(name, problem) for name, number in numbers.items() if (problem := count()(number)) is not None]
    if wrong:
        raise ConfigError("no contact sheet", wrong)


def _of_bucket(items: Sequence[Item], bucket: str | None) -> Sequence[Item]:
    if bucket is None:
        return items
    labels = {item.bucket_label: None for item in items}
    if bucket not in labels:
        near = did_you_mean(bucket, labels)
        raise ConfigError("no such bucket", [Issue("bucket", f"got {bucket!r}{near}", f"buckets: {', '.join(labels)}")])
    return [item for item in items if item.bucket_label == bucket]


def _fonts() -> Mapping[str, FT2Font]:
    """Return matplotlib's own font and those of the fallbacks that are there, by name."""
    from matplotlib.font_manager import findfont, fontManager, get_font

    installed = {entry.name for entry in fontManager.ttflist}
    names = ("DejaVu Sans", *(name for name in _FALLBACKS if name in installed))
    return {name: get_font(findfont(name)) for name in names}


def _legible(text: str, fonts: Mapping[str, FT2Font]) -> str:
    """Return a text with a box for each character that no font has; drawing one would be a warning each time."""
    return "".join(
        c if any(font.get_char_index(ord(c)) for font in fonts.values()) else "\N{WHITE SQUARE}" for c in text
    )
