"""Where items come from: the contract of sources, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import attrs

from musubi.core.errors import Issue, shown
from musubi.core.spec import Spec
from musubi.data.sample import Record


@attrs.frozen(kw_only=True)
class Listing:
    """What a source found: usable records, and an issue for each file or row that is not.

    ``notes`` cost no record: files that belong to nothing, fields that nobody reads but that look like a known one.
    """

    records: tuple[Record, ...] = ()
    issues: tuple[Issue, ...] = ()
    notes: tuple[Issue, ...] = ()


@attrs.frozen(kw_only=True)
class Source(Spec, ABC):
    """List media files with their captions."""

    family: ClassVar[str] = "source"

    @abstractmethod
    def read(self) -> Listing:
        """Return all records in a fixed order.

        Raises:
            DataError: The source as a whole cannot be read or holds nothing.
        """


def read_all(sources: Iterable[Source]) -> Listing:
    """Return what several sources found, one after the other."""
    listings = [source.read() for source in sources]
    return Listing(
        records=tuple(record for listing in listings for record in listing.records),
        issues=tuple(issue for listing in listings for issue in listing.issues),
        notes=tuple(note for listing in listings for note in listing.notes),
    )


def unread(path: Path) -> Issue:
    """Return the issue of a file of a format that is not read."""
    what = f"{path.suffix.lower()} is" if path.suffix else "a file without extension is"
    return Issue(shown(path), f"{what} not read", "convert it to PNG or MP4")
