"""Where weights and activations live changes no bit, in any combination, in real transformers of all families.

The combinations are covering arrays over the axes below, the family one of them: any two values of any two axes meet in
one at least. In each, a small history (accumulated gradients, sampling, two forwards before a backward, skipped blocks,
steps that fail half way) gives the same outputs and the same gradients of all adapters as in the same model kept
resident. Slots are full of NaN until their copy is done, so that nothing can be right by luck. Compiled blocks, which
take longer, are in test_memory_equality_compiled.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest

from tests.contract import memory_cases as cases
from tests.contract.covering import Row, covering, pairs_in, pairs_of
from tests.contract.memory_history import Told, history, same
from tests.contract.tiny_transformers import FAMILIES

AXES: Mapping[str, Sequence[Any]] = {
    "family": tuple(FAMILIES),
    "streamed": tuple(cases.STREAMED),
    "slots": (1, 2, 3),
    "copier": tuple(cases.COPIERS),
    "quantised": tuple(cases.QUANTISED),
    "attention": tuple(cases.ATTENTION),
    "checkpointed": tuple(cases.CHECKPOINTED),
    "activations": cases.ACTIVATIONS,
    "precision": cases.PRECISIONS,
    "compiled": ("as written",),
}
ROUNDS = 1
MATRIX = [row for seed in range(ROUNDS) for row in covering(AXES, seed=seed)]


@cache
def resident(family: str, quantised: str, attention: str, precision: str) -> Told:
    """Return what happens with everything resident, from beginning to end."""
    made = cases.case(family, quantised, precision)
    with cases.resident(made, {"attention": attention, "compiled": "as written"}):
        return history(made)


@pytest.mark.parametrize("row", MATRIX, ids=cases.titles(MATRIX))
def test_a_combination_tells_what_the_resident_model_tells(row: Row) -> None:
    expected = resident(row["family"], row["quantised"], row["attention"], row["precision"])
    made = cases.case(row["family"], row["quantised"], row["precision"])
    before = cases.snapshot(made.model)

    with cases.in_place(made, row):
        told = history(made)

    assert same(told, expected)
    assert cases.unchanged(made.model, before)


def test_every_pair_of_values_meets_in_some_combination(capsys: pytest.CaptureFixture[str]) -> None:
    met = {pair for row in MATRIX for pair in pairs_in(row)}

    assert met == set(pairs_of(AXES))
    with capsys.disabled():
        sys.stdout.write(f"\n{len(MATRIX)} combinations, {len(met)} pairs of values\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_history_would_notice(family: str) -> None:
    told = resident(family, "plain", "usual", "float32")
    made = cases.case(family, "plain", "float32")

    numbers = [tensor for tensor in told if tensor is not None]
    assert len(made.blocks) == cases.BLOCKS
    assert all(tensor.isfinite().all() for tensor in numbers)
    assert len(numbers) > 0.8 * len(told)  # the last block's text goes nowhere in some
    assert sum(bool(tensor.any()) for tensor in numbers) > 0.95 * len(numbers)
