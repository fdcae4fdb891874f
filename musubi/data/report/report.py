"""A scan for people: words, a card, figures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import Issue, printable
from musubi.core.notebook import card
from musubi.data.report.facts import facts
from musubi.data.report.findings import gathered
from musubi.data.report.places import Places
from musubi.data.report.summary import Summary
from musubi.data.report.text import sections
from musubi.data.report.wording import counted, named
from musubi.data.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REASONS, _NAMED = 3, 3
"""How many reasons the headline has, and how many files each of them names."""

_ROWS = 12
"""How many buckets, reasons and notes the card shows."""


@attrs.frozen(kw_only=True)
class Report:
    """What a scan found: printed, shown in a notebook, drawn, or saved as a page.

    Example:
        >>> from musubi.core.errors import Issue, printable
        >>> from musubi.data.report.report import Report
        >>> from musubi.data.scan import Scan
        >>> print(Report(scan=Scan(items=(), dropped=(Issue("a.png", "control missing", "add one"),))))
        0 items, 0 buckets, 1 dropped: control missing (a.png)
        <BLANKLINE>
        dropped (1):
          control missing (1): add one
            a.png
    """

    scan: Scan

    @property
    def headline(self) -> str:
        """One line: ``412 items, 9 buckets, 3 dropped: control missing (a.png, b.png, c.png)``."""
        counts = [counted(len(self.scan.items), "item"), counted(len(self.scan.buckets), "bucket")]
        if not self.scan.dropped:
            return ", ".join(counts)
        reasons = [f"{reason} ({_file_names(files)})" for reason, files in self.reasons.items()]
        rest = len(reasons) - _REASONS
        told = "; ".join(reasons[:_REASONS]) + (f"; and {counted(rest, 'other reason')}" if rest > 0 else "")
        return ", ".join([*counts, f"{len(self.scan.dropped):,} dropped: {told}"])

    @property
    def reasons(self) -> Mapping[str, tuple[str, ...]]:
        """The files that were dropped, by reason; the most frequent reason first."""
        return _by_message(self.scan.dropped)

    @property
    def notes(self) -> Mapping[str, tuple[str, ...]]:
        """The files that are kept but that one should know something of, by what it is; the most frequent first."""
        return _by_message(self.scan.notes)

    @property
    def summary(self) -> Summary:
        """All the figures; reads no file."""
        return Summary.of(self.scan)

    def plot(self) -> Figure:
        """Return a figure of how many items each bucket has.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        from musubi.data.report.figures import histogram

        return histogram(self.summary.buckets)

    def contact_sheet(self, *, columns: int = 6, rows: int = 4, bucket: str | None = None) -> Figure:
        """Return a figure of pictures from all buckets, or from one; what the crop cuts away is faded.

        Raises:
            ConfigError: There is no such bucket, a number is below 1, or matplotlib is not installed.
        """
        from musubi.data.report.figures import contact_sheet

        return contact_sheet(self.scan.items, columns=columns, rows=rows, bucket=bucket)

    def save(self, path: Path | str, *, pictures: int = 48) -> Path:
        """Write the report as one HTML file that needs nothing else, with so many small pictures, and return its path.

        Raises:
            ConfigError: The name does not end in ``.html``, or the file cannot be written.
        """
        from musubi.data.report.page import save_page

        return save_page(self.headline, self.scan, Path(path), pictures=pictures)

    def __str__(self) -> str:
        return "\n\n".join([self.headline, *sections(self.scan)])

    def _repr_html_(self) -> str:
        summary = self.summary
        rows: list[tuple[str, object]] = list(facts(summary, Places.of(self.scan)))
        rows.append(("buckets", named([f"{bucket.label}: {bucket.items:,}" for bucket in summary.buckets], _ROWS)))
        rows += [(f"dropped: {reason}", _told(files)) for reason, files in list(self.reasons.items())[:_ROWS]]
        rows += [(f"noted: {note}", _told(files)) for note, files in list(self.notes.items())[:_ROWS]]
        return card(self.headline, rows)


def _by_message(issues: Sequence[Issue]) -> Mapping[str, tuple[str, ...]]:
    return {finding.message: tuple(issue.path for issue in finding.issues) for finding in gathered(issues)}


def _file_names(files: Sequence[str]) -> str:
    return named([printable(PurePosixPath(file).name) for file in files], _NAMED)


def _told(files: Sequence[str]) -> str:
    return f"{counted(len(files), 'file')}: {_file_names(files)}"
