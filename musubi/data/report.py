"""A scan for people: words, a card for notebooks, a histogram and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import DataError
from musubi.core.figures import new_figure
from musubi.core.notebook import card
from musubi.data.sample import Item
from musubi.data.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 8
"""How many files a reason names before it only counts."""


@attrs.frozen(kw_only=True)
class Report:
    """What a scan found, to be printed, shown in a notebook or drawn."""

    scan: Scan

    @property
    def headline(self) -> str:
        """One line: ``412 items, 9 buckets, 3 dropped: control missing (a.png, b.png, c.png)``."""
        counts = [_counted(len(self.scan.items), "item"), _counted(len(self.scan.buckets), "bucket")]
        if not self.scan.dropped:
            return ", ".join(counts)
        reasons = "; ".join(f"{reason} ({_named(files)})" for reason, files in self.reasons.items())
        return ", ".join([*counts, f"{len(self.scan.dropped)} dropped: {reasons}"])

    @property
    def reasons(self) -> Mapping[str, tuple[str, ...]]:
        """The files that were dropped, by reason."""
        grouped: dict[str, list[str]] = {}
        for issue in self.scan.dropped:
            grouped.setdefault(issue.message, []).append(issue.path)
        return {reason: tuple(files) for reason, files in grouped.items()}

    def plot(self) -> Figure:
        """Return a figure of how many items each bucket has."""
        buckets = self.scan.buckets
        figure = new_figure(6.0, 1.0 + 0.3 * max(1, len(buckets)))
        axes = figure.add_subplot()
        axes.barh(list(buckets), list(buckets.values()))
        axes.invert_yaxis()
        axes.set_xlabel("items")
        axes.locator_params(axis="x", integer=True)
        axes.set_title(f"{_counted(len(self.scan), 'item')} by bucket")
        return figure

    def contact_sheet(self, *, columns: int = 6, rows: int = 4) -> Figure:
        """Return a figure of the first items as they are cropped, with the beginnings of their captions."""
        shown = self.scan.items[: columns * rows]
        columns = min(columns, max(1, len(shown)))
        used = max(1, -(-len(shown) // columns))
        figure = new_figure(2.0 * columns, 2.3 * used)
        for place, item in enumerate(shown, start=1):
            axes = figure.add_subplot(used, columns, place)
            axes.set_axis_off()
            axes.set_title(item.caption[:24], fontsize=7)
            _draw(axes, item)
        return figure

    def __str__(self) -> str:
        width = max((len(label) for label in self.scan.buckets), default=0)
        buckets = [f"  {label:>{width}}  {n}" for label, n in self.scan.buckets.items()]
        dropped = [f"  {issue}" for issue in self.scan.dropped]
        return "\n".join([self.headline, *(["buckets:", *buckets]), *(["dropped:", *dropped] if dropped else [])])

    def _repr_html_(self) -> str:
        buckets = ", ".join(f"{label}: {n}" for label, n in self.scan.buckets.items())
        rows: list[tuple[str, object]] = [("items", len(self.scan)), ("buckets", buckets)]
        rows += [(f"dropped: {reason}", _named(files)) for reason, files in self.reasons.items()]
        return card(self.headline, rows)


def _draw(axes: object, item: Item) -> None:
    """Draw an item's first frame, or leave the place empty if it cannot be read."""
    from matplotlib.axes import Axes

    from musubi.data.media import load_pixels
    from musubi.data.sample import Window

    assert isinstance(axes, Axes)
    try:
        pixels = load_pixels(item.path, window=Window(item.window.start, 1), bucket=item.bucket)
    except DataError:
        axes.text(0.5, 0.5, "unreadable", ha="center")
    else:
        axes.imshow(pixels[0].numpy())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _named(files: tuple[str, ...]) -> str:
    names = [PurePosixPath(file).name for file in files[:_NAMED]]
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
