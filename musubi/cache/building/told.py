"""What a build tells while it runs: to the log, and to those who listen."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import attrs

from musubi.core.errors import Issue
from musubi.core.events import Callback, Event, Warned
from musubi.data.report.findings import gathered
from musubi.data.report.wording import counted, named

logger = logging.getLogger(__name__)

_NAMED = 8
"""Files that a line names before it only counts."""


@attrs.frozen
class Teller:
    """Listeners, and the words that are kept for the log as well."""

    on: Sequence[Callback] = ()

    def __call__(self, event: Event) -> None:
        """Tell an event to all who listen."""
        for callback in self.on:
            callback(event)

    def warn(self, message: str) -> None:
        """Tell something that one should know but that does not stop the work."""
        logger.warning("%s", message)
        self(Warned(message=message))

    def notes(self, notes: Sequence[Issue]) -> None:
        """Tell what one would want to know of what is kept: once for each kind, naming the first few."""
        for finding in gathered(notes):
            names = named([note.path for note in finding.issues], _NAMED)
            many = f"{finding.message}, {counted(len(finding), 'file')}: {names}"
            text = many if len(finding) > 1 else str(finding.issues[0])
            logger.info("%s", text)
            self(Warned(message=text))

    def left_out(self, issues: Sequence[Issue]) -> None:
        """Tell what cannot be used, and why."""
        for finding in gathered(issues):
            if len(finding) <= _NAMED:
                lines = list(map(str, finding.issues))
            else:
                names = named([issue.path for issue in finding.issues], _NAMED)
                hint = f" (hint: {finding.issues[0].hint})" if finding.issues[0].hint else ""
                lines = [f"{finding.message}, {counted(len(finding), 'file')}: {names}{hint}"]
            for line in lines:
                logger.warning("left out: %s", line)
        for issue in issues:
            self(Warned(message=str(issue)))
