"""How the cells of a shrunk axis cover those of the original one: the weights of OpenCV's INTER_AREA."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import attrs
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

_EPSILON = float(np.finfo(np.float64).eps)


@attrs.frozen(eq=False)
class Coverage:
    """What the cells of a target axis cover of a source axis, each cell in three parts.

    Cell i is ``lead[i]`` times the source cell ``edge[i]``, ``full[i]`` times the sum of ``count[i]`` source cells from
    ``first[i]`` on, and ``tail[i]`` times the source cell ``edge[i + 1]``.
    """

    edge: Indices
    first: Indices
    count: Indices
    lead: Floats
    full: Floats
    tail: Floats

    def __len__(self) -> int:
        return len(self.first)

    @property
    def longest(self) -> int:
        """The most source cells that one cell covers whole."""
        return int(self.count.max())

    @property
    def shortest(self) -> int:
        """The fewest source cells that one cell covers whole."""
        return int(self.count.min())

    @property
    def ragged(self) -> bool:
        """Whether some cell covers a part of a source cell only."""
        return bool(self.lead.any() or self.tail.any())

    @property
    def exact(self) -> bool:
        """Whether all weights are multiples of 1/256; sums over two such axes are exact in float32, in any order."""
        return all(bool(np.all(np.mod(w * 256, 1) == 0)) for w in (self.lead, self.full, self.tail))

    def part(self, start: int, stop: int) -> Coverage:
        """Return what the cells from ``start`` to before ``stop`` cover."""
        cells = slice(start, stop)
        edge = self.edge[start : stop + 1]
        return Coverage(
            edge, self.first[cells], self.count[cells], self.lead[cells], self.full[cells], self.tail[cells]
        )

    def terms(self, cells: Indices) -> Iterator[tuple[Indices, Floats]]:
        """Yield source cells and weights of ``cells``, one term of each sum after the other in OpenCV's order."""
        first, count, full = self.first[cells], self.count[cells], self.full[cells]
        yield self.edge[cells], self.lead[cells]
        for number in range(self.longest):
            there = number < count
            yield first + number * there, full * there
        yield self.edge[cells + 1], self.tail[cells]


@lru_cache(maxsize=128)
def coverage(source: int, target: int) -> Coverage:
    """Return what each of ``target`` cells covers of ``source`` cells; ``target`` is not the larger one.

    Source: OpenCV ``resize.cpp``, ``computeResizeAreaTab``; shares below a thousandth are left out, as there.
    """
    scale = 1 / (target / source)
    start = np.arange(target) * scale
    stop = start + scale
    cell = np.minimum(scale, source - start)
    last = np.minimum(np.floor(stop).astype(np.intp), source - 1)
    first = np.minimum(np.ceil(start).astype(np.intp), last)
    lead = np.where(first - start > 1e-3, (first - start) / cell, 0)
    tail = np.where(stop - last > 1e-3, np.minimum(np.minimum(stop - last, 1), cell) / cell, 0)
    # Where a cell begins inside a source cell, the one before it ends there.
    edge = np.append(np.where(lead > 0, first - 1, np.append(0, last[:-1])), last[-1])
    weights = [values.astype(np.float32) for values in (lead, 1 / cell, tail)]
    return Coverage(edge, first, last - first, *weights)


def whole(source: int, target: int) -> bool:
    """Return whether every target cell covers the same whole number of source cells, as OpenCV decides it."""
    scale = 1 / (target / source)
    return abs(scale - round(scale)) < _EPSILON
