"""A progress bar over the bytes of a checkpoint, for loads that take long enough to wonder."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_PATIENCE_S = 1.0
"""How long a load goes on in silence."""

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent() -> Generator[None]:
    """Show no progress of what is loaded inside this ``with``, by this thread or task."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


@contextmanager
def loading(name: str, total: int) -> Generator[Callable[[int], None]]:
    """Yield what is told how many bytes have come; a bar of ``total`` bytes appears once that takes over a second."""
    bar = _Bar(name, total)
    try:
        yield bar.add
    finally:
        bar.close()


class _Bar:
    """A bar that is made when it is needed."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total = name, total
        self._began = time.monotonic()
        self._shown = not _SILENT.get()
        self._bar: tqdm[Any] | None = None
        self._before = 0

    def add(self, count: int) -> None:
        """Count further bytes."""
        if self._bar is not None:
            self._bar.update(count)
            return
        self._before += count
        if self._shown and time.monotonic() - self._began > _PATIENCE_S:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self._total,
                initial=self._before,
                desc=f"loading {self._name}",
                unit="B",
                unit_scale=True,
                leave=False,
            )

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
