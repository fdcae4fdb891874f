"""Threads for decoding: several files at a time, but all of one file in one thread, so that it is read through once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Decoders:
    """A few threads. Work on the file that was given last goes to the same thread, in order; other work to the idlest.

    Work is given by one thread. On exit what has not begun is dropped, and the rest waited for.
    """

    def __init__(self, threads: int) -> None:
        self._pools = [ThreadPoolExecutor(1, thread_name_prefix="musubi-decode") for _ in range(threads)]
        self._pending: list[list[Future[Any]]] = [[] for _ in self._pools]
        self._path: Path | None = None
        self._thread = 0

    def submit(self, path: Path, work: Callable[[], T]) -> Future[T]:
        """Let a thread do work on a file."""
        if path != self._path:
            self._path, self._thread = path, self._idlest()
        future = self._pools[self._thread].submit(work)
        self._pending[self._thread].append(future)
        return future

    def _idlest(self) -> int:
        for futures in self._pending:
            futures[:] = [future for future in futures if not future.done()]
        return min(range(len(self._pools)), key=lambda thread: len(self._pending[thread]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)
