"""Copiers that are as late and as harsh as a device may be, for tests of what depends on them."""

from __future__ import annotations

import threading
import time
from random import Random

from torch import Tensor

NAN = 0xFF
"""A byte that makes NaN of every float type when repeated."""


class LateCopier:
    """Poison a slot at once and fill it only when somebody waits for it, as late as a device may."""

    def copy(self, target: Tensor, source: Tensor) -> list[Tensor]:
        target.fill_(NAN)
        return [target, source]

    def wait(self, ticket: object) -> None:
        assert isinstance(ticket, list)
        if ticket:
            target, source = ticket
            target.copy_(source)
            ticket.clear()

    def close(self) -> None:
        return None


class ThreadedCopier:
    """Poison a slot at once and fill it from another thread after a random delay, up to ``longest_s`` seconds."""

    def __init__(self, *, seed: int = 0, longest_s: float = 1e-3) -> None:
        self._random, self._longest_s = Random(seed), longest_s

    def copy(self, target: Tensor, source: Tensor) -> threading.Thread:
        target.fill_(NAN)
        delay = self._random.random() * self._longest_s

        def later() -> None:
            time.sleep(delay)
            target.copy_(source)

        thread = threading.Thread(target=later)
        thread.start()
        return thread

    def wait(self, ticket: object) -> None:
        assert isinstance(ticket, threading.Thread)
        ticket.join()

    def close(self) -> None:
        return None
