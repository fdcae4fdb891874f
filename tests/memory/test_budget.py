from __future__ import annotations

import pytest

from musubi.memory.budget import budget, budget_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [("16GiB", 16 << 30), ("7.5 GB", 7_500_000_000), ("512 mib", 512 << 20), ("2048B", 2048), ("24kb", 24_000)],
)
def test_amounts_are_read_as_written(text: str, amount: int) -> None:
    assert budget_bytes(text) == amount
    assert budget(text) is None


@pytest.mark.parametrize("value", ["16", "GiB", "16 G", "-1GiB", "0GiB", "16GiB free", "", 16, "16 B", None])
def test_anything_else_is_refused_with_an_example(value: object) -> None:
    assert budget(value) == f"must be an amount of memory such as '16GiB', got {value!r}"
