"""Stopping long work politely from any thread."""

from __future__ import annotations


class CancelToken:
    """A flag that any thread may set; long work looks at it between steps, finishes cleanly and stops."""

    def __init__(self) -> None:
        self._asked = False  # a bool and not a lock, which a signal handler could find taken

    def cancel(self) -> None:
        """Ask for the stop; safe to call more than once and from any thread."""
        self._asked = True

    @property
    def cancelled(self) -> bool:
        """Whether the stop was asked for."""
        return self._asked
