"""A scan as text that fits a terminal, however many items there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from musubi.core.errors import Issue, printable
from musubi.data.report.facts import facts
from musubi.data.report.findings import Finding, gathered
from musubi.data.report.places import Places
from musubi.data.report.summary import BucketFigures, Summary
from musubi.data.report.wording import counted, named, percent

if TYPE_CHECKING:
    from musubi.data.scan import Scan

_WIDTH = 80
_BUCKETS, _FINDINGS, _FILES = 20, 10, 5
"""How many of each are shown before they are only counted."""

_HEADER = ("bucket", "items", "share", "validation", "aspect", "batches", "enlarged")


def sections(scan: Scan) -> Iterator[str]:
    """Yield the figures, the buckets, what was dropped and what was noted, each if there is any."""
    places, summary = Places.of(scan), Summary.of(scan)
    parts = [
        _facts(summary, places),
        _buckets(summary),
        _findings("dropped", scan.dropped, places),
        _findings("noted", scan.notes, places),
    ]
    yield from ("\n".join(lines) for lines in parts if lines)


def _facts(summary: Summary, places: Places) -> list[str]:
    rows = list(facts(summary, places))
    if rows and places.folder:
        rows.insert(0, ("folder", printable(places.folder)))
    width = max((len(name) for name, _ in rows), default=0)
    return [
        line for name, value in rows for line in _wrapped(value, first=f"{name:<{width}}  ", rest=" " * (width + 2))
    ]


def _buckets(summary: Summary) -> list[str]:
    """Return the table of buckets, the largest first; without a column that says nothing."""
    if not summary.buckets:
        return []
    total = summary.train + summary.validation
    shown = summary.buckets if len(summary.buckets) <= _BUCKETS + 1 else summary.buckets[:_BUCKETS]
    rows = [_HEADER, *(_row(bucket, total) for bucket in shown)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    padded = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    lines = ["  ".join(row) for row in zip(*padded, strict=True)]
    rest = summary.buckets[len(shown) :]
    if rest:
        lines.append(f"and {len(rest):,} more buckets with {counted(sum(bucket.items for bucket in rest), 'item')}")
    return [line.rstrip() for line in lines]


def _row(bucket: BucketFigures, total: int) -> tuple[str, ...]:
    return (
        bucket.label,
        f"{bucket.items:,}",
        percent(bucket.items / total),
        f"{bucket.validation:,}" if bucket.validation else "",
        f"{bucket.aspect:.2f}",
        f"{bucket.batches:,}",
        f"{bucket.enlarged:,}, up to {bucket.enlargement:.2f}x" if bucket.enlarged else "",
    )


def _findings(title: str, issues: Sequence[Issue], places: Places) -> list[str]:
    """Return the issues message by message; what all files of a message are advised is said once."""
    if not issues:
        return []
    findings = gathered(places.issue(issue) for issue in issues)
    shown = findings if len(findings) <= _FINDINGS + 1 else findings[:_FINDINGS]
    lines = [f"{title} ({len(issues):,}):"]
    for finding in shown:
        lines += _finding(finding)
    rest = findings[len(shown) :]
    if rest:
        lines.append(f"  and {len(rest):,} other messages ({sum(map(len, rest)):,})")
    return lines


def _finding(finding: Finding) -> Iterator[str]:
    number = f"{finding.message} ({len(finding):,})"
    if finding.hint or not any(issue.hint for issue in finding.issues):
        yield from _wrapped(number + (f": {finding.hint}" if finding.hint else ""), first="  ", rest="    ")
        yield from _wrapped(named([issue.path for issue in finding.issues], _FILES), first="    ", rest="    ")
        return
    yield f"  {number}:"
    shown = finding.issues if len(finding) <= _FILES + 1 else finding.issues[:_FILES]
    for issue in shown:
        yield from _wrapped(f"{issue.path}: {issue.hint}", first="    ", rest="      ")
    if len(finding) > len(shown):
        yield f"    and {len(finding) - len(shown):,} more"


def _wrapped(text: str, *, first: str, rest: str) -> list[str]:
    """Return lines of at most the terminal's width; a path that is longer is not torn."""
    return wrap(
        text,
        width=_WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
