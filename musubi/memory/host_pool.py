"""Host memory for what comes and goes in every step, pinned where a device copies from it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from musubi.memory.arena import CHUNK, PAGE, Registrar, chunks
from musubi.memory.packing import ALIGNMENT, aligned

logger = logging.getLogger(__name__)


class HostPool:
    """Hand out memory from front to back, and begin again at the front once nothing of it is in use.

    The first pass finds out how much is needed, piece by piece; after a pass that needed more bytes than any before,
    the pool is laid out anew, in a few stretches that it fits into. While something stays in use, as of a graph that
    somebody keeps, what has come back is handed out again by its size. ``settle`` returns when no copy is under way: it
    is called before memory is given back to the system. Whoever copies does so in the order asked for, so that memory
    may be handed out before a copy from it is done.
    """

    def __init__(
        self, registrar: Registrar | None = None, *, settle: Callable[[], None] = lambda: None, chunk: int = CHUNK
    ) -> None:
        self._registrar, self._settle, self._chunk = registrar, settle, chunk
        self._stretches: list[Tensor] = []
        self._registered: list[int] = []
        self._pinning = registrar is not None
        self._index = self._used = self._in_use = 0
        self._sizes = list[int]()
        self._back: dict[int, list[Tensor]] = {}
        self._laid = self._layout = 0

    @property
    def nbytes(self) -> int:
        """How many bytes the pool has."""
        return sum(map(len, self._stretches))

    @property
    def in_use(self) -> int:
        """How many bytes are handed out."""
        return self._in_use

    def take(self, size: int) -> Piece:
        """Return ``size`` bytes that are nobody else's until the piece is gone."""
        if not self._in_use:
            self._begin_again()
        needed = aligned(size, ALIGNMENT)
        self._in_use += needed
        self._sizes.append(needed)
        if self._back.get(needed):
            return Piece(self, self._back[needed].pop(0), size, self._layout)
        while self._index < len(self._stretches) and self._used + needed > len(self._stretches[self._index]):
            self._index, self._used = self._index + 1, 0
        if self._index == len(self._stretches):
            self._add(needed)
        memory = self._stretches[self._index][self._used : self._used + needed]
        self._used += needed
        return Piece(self, memory, size, self._layout)

    def give(self, memory: Tensor, layout: int) -> None:
        """Hear that some memory of a layout of the pool is not in use any more."""
        self._in_use -= len(memory)
        if layout == self._layout:
            self._back.setdefault(len(memory), []).append(memory)

    def close(self) -> None:
        """Unpin all; what is still in use lives on."""
        self._settle()
        while self._registered:
            address = self._registered.pop()
            assert self._registrar is not None, "it has registered them"
            self._registrar.unregister(address)
        self._stretches.clear()
        self._back.clear()
        self._index = self._used = 0
        self._layout += 1

    def _begin_again(self) -> None:
        self._index = self._used = 0
        self._back.clear()
        sizes, self._sizes = self._sizes, []
        if sum(sizes) > self._laid:
            self._laid = sum(sizes)
            self.close()
            for group in chunks(sizes, limit=self._chunk):
                self._add(sum(group))

    def _add(self, size: int) -> None:
        """Add a stretch of whole pages."""
        room = aligned(size, PAGE)
        memory = torch.empty(room + PAGE, dtype=torch.uint8)
        start = -memory.data_ptr() % PAGE
        self._stretches.append(memory[start : start + room])
        if self._registrar is not None and self._pinning:
            self._pin(self._registrar, memory.data_ptr() + start, room)

    def _pin(self, registrar: Registrar, address: int, size: int) -> None:
        if registrar.register(address, size):
            self._registered.append(address)
            return
        self._pinning = False
        logger.warning(
            "cannot pin %.2f GiB for activations: copying them holds the computation up (raise the limit of locked "
            "memory, e.g. `ulimit -l unlimited`)",
            size / (1 << 30),
        )


class Piece:
    """Some bytes of a pool, ``data``, until it is forgotten."""

    def __init__(self, pool: HostPool, memory: Tensor, size: int, layout: int) -> None:
        self.data = memory[:size]
        self._pool, self._memory, self._layout = pool, memory, layout

    def __del__(self) -> None:
        self._pool.give(self._memory, self._layout)
