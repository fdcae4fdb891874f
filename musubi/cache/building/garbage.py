"""Sparing the garbage collector work that is known to be vain."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def settled() -> Generator[None, None, None]:
    """Keep the collector from going through all that is there already, again and again, while many objects are made.

    Models and libraries are hundreds of thousands of objects: to look for garbage among them takes a quarter of the
    time in which a cache of ten thousand items is found to be unchanged. Where someone else has told the collector the
    same, nothing is done.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
