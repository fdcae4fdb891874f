"""Compiled blocks compose with everything else: the same bits as the compiled model kept resident.

Every family; the backends and the other axes are dealt out so that each value comes with one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.contract import memory_cases as cases
from tests.contract.covering import Row
from tests.contract.memory_history import Told, generated, same, step
from tests.contract.tiny_transformers import FAMILIES

BACKENDS = ("eager", "aot_eager")
QUICK = ("wan", "qwen_image")
"""Families whose blocks are all of one class, so that the slower backend has one thing to compile."""
OTHERS: Mapping[str, Sequence[Any]] = {
    "streamed": ("half", "all but one", "one", "all", "none"),
    "slots": (2, 1, 3),
    "copier": tuple(cases.COPIERS),
    "quantised": tuple(cases.QUANTISED),
    "attention": tuple(cases.ATTENTION),
    "checkpointed": tuple(cases.CHECKPOINTED),
    "activations": cases.ACTIVATIONS,
    "precision": cases.PRECISIONS,
}
MATRIX: list[Row] = [
    {
        "family": family,
        **{axis: values[place % len(values)] for axis, values in OTHERS.items()},
        "compiled": BACKENDS[family in QUICK],
    }
    for place, family in enumerate(FAMILIES)
]

# Where a gradient is no leaf's, torch looks nevertheless, and hides its own warning in a way that pytest undoes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def history(made: cases.Case) -> Told:
    """Return what two steps tell, and a generation between them."""
    return [*step(made, 1, 2), generated(made, 3), *step(made, 4)]


@pytest.mark.parametrize("row", MATRIX, ids=cases.titles(MATRIX))
def test_a_combination_tells_what_the_resident_compiled_model_tells(row: Row) -> None:
    made = cases.case(row["family"], row["quantised"], row["precision"])
    before = cases.snapshot(made.model)
    with cases.resident(made, row):
        expected = history(made)

    with cases.in_place(made, row):
        told = history(made)

    assert same(told, expected)
    assert cases.unchanged(made.model, before)


def test_every_value_comes_with_some_family(capsys: pytest.CaptureFixture[str]) -> None:
    for axis, values in {**OTHERS, "compiled": BACKENDS}.items():
        assert {row[axis] for row in MATRIX} == set(values)
    with capsys.disabled():
        sys.stdout.write(f"\n{len(MATRIX)} combinations\n")
