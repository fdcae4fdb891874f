"""What a scan has to say about single files, gathered by what it says."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from musubi.core.errors import Issue


@attrs.frozen
class Finding:
    """One message and the issues that have it, in the order in which they were found."""

    message: str
    issues: tuple[Issue, ...]

    @property
    def hint(self) -> str:
        """What all of the issues advise; empty if they advise different things."""
        hints = {issue.hint for issue in self.issues}
        return hints.pop() if len(hints) == 1 else ""

    def __len__(self) -> int:
        return len(self.issues)


def gathered(issues: Iterable[Issue]) -> tuple[Finding, ...]:
    """Return the findings, those with most issues first."""
    grouped: dict[str, list[Issue]] = {}
    for issue in issues:
        grouped.setdefault(issue.message, []).append(issue)
    findings = [Finding(message, tuple(held)) for message, held in grouped.items()]
    return tuple(sorted(findings, key=len, reverse=True))
