"""Decoding the next batches while one is encoded, within a bound of memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from musubi.cache.building.batches import JobBatch
from musubi.cache.building.jobs import Job
from musubi.data.media.decoders import Decoders

T = TypeVar("T")
_THREADS = 16
"""More do not help: decoding is then faster than anything that encodes."""

_BYTES = 256 << 20
"""As much as is decoded ahead, unless a single batch is larger."""


def decoded(
    batches: Iterable[JobBatch], decode: Callable[[Job], T], *, limit: int = _BYTES
) -> Generator[tuple[JobBatch, list[T]]]:
    """Yield every batch with what ``decode`` makes of its jobs, in order; its list is emptied before the next.

    A few threads decode the next batches while the caller is busy with one. What they hold together with that one stays
    below ``limit`` bytes, but for a batch that is larger by itself. The threads end with the generator.
    """
    waiting: deque[tuple[JobBatch, deque[Future[T]]]] = deque()
    source, held = iter(batches), 0
    upcoming = next(source, None)
    with Decoders(min(_THREADS, os.cpu_count() or 1)) as decoders:
        while waiting or upcoming is not None:
            while upcoming is not None and _fits(upcoming.bytes, held, limit=limit, waiting=len(waiting)):
                begun = (decoders.submit(job.item.path, partial(decode, job)) for job in upcoming.jobs)
                waiting.append((upcoming, deque(begun)))
                held += upcoming.bytes
                upcoming = next(source, None)
            batch, futures = waiting.popleft()
            results = [futures.popleft().result() for _ in batch.jobs]
            yield batch, results
            results.clear()
            held -= batch.bytes


def _fits(more: int, held: int, *, limit: int, waiting: int) -> bool:
    """Return whether a batch may be decoded beside what is held and waits; the first always may."""
    return not waiting or (held + more <= limit and waiting <= _THREADS)
