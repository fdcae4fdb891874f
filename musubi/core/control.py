"""Stopping long work politely from any thread."""

from __future__ import annotations

import threading


class CancelToken:
    """A flag that any thread may set; long work looks at it between steps, finishes cleanly and stops."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask for the stop; safe to call more than once and from any thread."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the stop was asked for."""
        return self._event.is_set()
