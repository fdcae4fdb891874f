"""Few combinations in which every pair of values of any two axes meets: defects seldom need three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from random import Random
from typing import Any

Row = Mapping[str, Any]
Pair = tuple[tuple[str, Any], tuple[str, Any]]

_TRIES = 20
"""Rows that are made up for each one that is taken."""


def covering(axes: Mapping[str, Sequence[Any]], *, seed: int = 0) -> tuple[Row, ...]:
    """Return combinations of one value of each axis in which every pair of values occurs; values must be hashable."""
    random, missing, rows = Random(seed), set(pairs_of(axes)), list[Row]()
    while missing:
        made = [_made(axes, missing, random) for _ in range(_TRIES)]
        best = max(made, key=lambda row: len(missing & set(pairs_in(row))))
        missing -= set(pairs_in(best))
        rows.append(best)
    return tuple(rows)


def pairs_of(axes: Mapping[str, Sequence[Any]]) -> list[Pair]:
    """Return every pair of values of two axes."""
    return [((a, x), (b, y)) for a, b in combinations(axes, 2) for x, y in product(axes[a], axes[b])]


def pairs_in(row: Row) -> list[Pair]:
    """Return the pairs of values that a combination has."""
    return list(combinations(row.items(), 2))


def _made(axes: Mapping[str, Sequence[Any]], missing: set[Pair], random: Random) -> Row:
    """Return a row that begins with a missing pair and goes on with what brings most of the others."""
    row = dict(random.choice(sorted(missing, key=repr)))
    for axis in random.sample(list(axes), len(axes)):
        if axis not in row:
            values = random.sample(list(axes[axis]), len(axes[axis]))
            row[axis] = max(values, key=lambda value: _gain(axes, row, axis, value, missing))
    return {axis: row[axis] for axis in axes}


def _gain(axes: Mapping[str, Sequence[Any]], row: Row, axis: str, value: object, missing: set[Pair]) -> int:
    order = list(axes)
    pairs = [((a, v), (axis, value)) for a, v in row.items()]
    return sum((p if order.index(p[0][0]) < order.index(p[1][0]) else (p[1], p[0])) in missing for p in pairs)
