"""What tests of compiled models need: no traces of other tests, and a count of what was compiled."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch._dynamo
from torch._dynamo.utils import counters

quietly = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
"""Let torch look at gradients as it does when it compiles: it hides the warning, but not from tests that forbid any."""


@contextmanager
def forgetting() -> Generator[None]:
    """Forget all that was compiled, before and after a ``with``."""
    torch._dynamo.reset()
    counters.clear()
    try:
        yield
    finally:
        torch._dynamo.reset()


def graphs() -> int:
    """Return how many graphs were compiled since."""
    return int(counters["stats"]["unique_graphs"])


def breaks() -> tuple[str, ...]:
    """Return why graphs were cut since."""
    return tuple(counters["graph_break"])
