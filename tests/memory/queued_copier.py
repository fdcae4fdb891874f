"""A copier that keeps the order of a device's stream but no time: both ways, from a thread, after random delays."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

from torch import Tensor

from tests.memory.copiers import NAN


class QueuedCopier:
    """Copy in the order asked for, late; what is being written is NaN until then.

    A host buffer is NaN from the moment a copy to it is asked for. A slot is when its copy begins: earlier copies may
    still read it.
    """

    def __init__(self, *, seed: int = 0, longest_s: float = 1e-3) -> None:
        self._random, self._longest_s = Random(seed), longest_s
        self._worker = ThreadPoolExecutor(1)
        self.order: list[str] = []

    def moment(self) -> int:
        return len(self.order)

    def copy_after(self, moment: int, target: Tensor, source: Tensor) -> Future[None]:
        assert moment <= len(self.order)
        return self.copy(target, source)

    def copy(self, target: Tensor, source: Tensor) -> Future[None]:
        self.order.append("in")
        return self._worker.submit(self._later, target, source)

    def copy_back(self, target: Tensor, source: Tensor) -> Future[None]:
        self.order.append("back")
        target.fill_(NAN)
        return self._worker.submit(self._later, target, source)

    def wait(self, ticket: object) -> None:
        self.settle(ticket)

    def settle(self, ticket: object) -> None:
        assert isinstance(ticket, Future)
        ticket.result()

    def close(self) -> None:
        self._worker.shutdown(wait=True)

    def _later(self, target: Tensor, source: Tensor) -> None:
        target.fill_(NAN)
        time.sleep(self._random.random() * self._longest_s)
        target.copy_(source)
