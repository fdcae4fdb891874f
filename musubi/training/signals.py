"""Stopping cleanly when the system or the user asks the process to end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import FrameType

from musubi.core.control import CancelToken

logger = logging.getLogger(__name__)

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last one is Ctrl-Break, on Windows only


@contextmanager
def finishing_on_signals(cancel: CancelToken, *, echo_s: float = 0.0) -> Generator[None]:
    """Let Ctrl-C (SIGINT), SIGTERM and Ctrl-Break ask for a clean stop inside the block: they set ``cancel``.

    A second Ctrl-C raises ``KeyboardInterrupt`` at once. The handlers are the caller's again afterwards. Signals that
    the process ignores, e.g. SIGINT under ``nohup``, stay ignored. Only a process's main thread may handle signals: in
    any other thread the block changes nothing.

    Args:
        cancel: What is set.
        echo_s: Seconds in which another SIGINT counts as the same: a launcher such as ``torchrun`` passes on the one
            that a terminal has sent to all its processes already.

    Example:
        >>> from musubi import CancelToken, finishing_on_signals
        >>> cancel = CancelToken()
        >>> with finishing_on_signals(cancel):
        ...     cancel.cancelled
        False
    """
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            handler = _Handler(cancel, echo_s)
            for number in _numbers():
                _install(number, handler, stack)
        yield


class _Handler:
    """Set the token at the first signal; a later Ctrl-C ends the process as it would without this."""

    def __init__(self, cancel: CancelToken, echo_s: float) -> None:
        self._cancel, self._echo_s = cancel, echo_s
        self._first: dict[int, float] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number not in self._first:
            self._first[number] = now
            self._cancel.cancel()
            name = signal.Signals(number).name
            logger.warning("%s: finishing this step and saving; press Ctrl-C again to stop at once", name)
        elif number == signal.SIGINT and now - self._first[number] >= self._echo_s:
            raise KeyboardInterrupt


def _numbers() -> list[signal.Signals]:
    """Return the signals of this system that are handled now, by Python and not to be ignored."""
    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [number for number in known if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _install(number: signal.Signals, handler: _Handler, stack: ExitStack) -> None:
    before = signal.signal(number, handler)
    stack.callback(signal.signal, number, before)
