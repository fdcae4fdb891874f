"""Giving blocks another forward for a while."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


@contextmanager
def wrapped(blocks: Iterable[nn.Module], around: Callable[[nn.Module, Forward], Forward]) -> Generator[None]:
    """Let ``around(block, forward)`` stand in for each block's own forward, inside whatever hooks it has or gets.

    The module stays the same object with the same names in it, so that neither a state dict nor a hook notices.
    """
    before: list[tuple[nn.Module, Forward | None]] = []
    try:
        for block in blocks:
            forward = around(block, block.forward)
            before.append((block, vars(block).get("forward")))
            block.forward = forward
        yield
    finally:
        for block, own in reversed(before):
            if own is None:
                del block.forward
            else:
                block.forward = own
