"""How the tensors of cached items become a batch, equal to the reference's where that works."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.batch import RAGGED, batch_key, collate
from musubi.cache.format import content_name
from tests.parity.cases import vector_cases

Described = Mapping[str, tuple[str, list[int]]]
"""The tensors of a file by key: dtype and shape."""

_FLOAT8 = re.compile(r"_float8_e\dm\d\w*$")


@pytest.mark.parametrize("case", vector_cases("data_collate"), ids=lambda case: case["case"])
def test_data_collate(case: dict[str, Any]) -> None:
    files = [{**item["latent"], **item["te"]} for item in case["items"]]
    if any(_twice(file) for file in files):
        pytest.skip("a defect of the reference: two dtypes of one tensor in a file; our files are written whole")
    if any(_FLOAT8.search(key) for file in files for key in file):
        pytest.skip("a defect of the reference: a dtype with an underscore breaks its names; ours reads it")
    size = case["batch_size"]
    batches = [files[start : start + size] for start in range(0, len(files), size)]

    mixed = [_mixed(batch) for batch in batches]

    for batch, expected, differ in zip(batches, case["batches"], mixed, strict=True):
        if differ:
            assert len({batch_key(_tensors(file)) for file in batch}) > 1
        else:
            _assert_equal(batch, expected)
    if any(mixed):
        pytest.skip("a defect of the reference: shapes that differ share a batch; our batch key keeps them apart")


def _assert_equal(files: Sequence[Described], expected: Mapping[str, Any]) -> None:
    items = [_tensors(file) for file in files]
    assert len({batch_key(item) for item in items}) == 1

    batch = collate(items, items=[str(i) for i in range(len(items))], bucket="")

    ragged = {name.removeprefix(RAGGED): [_described(t) for t in ts] for name, ts in batch.ragged.items()}
    stacked = {name: _described(tensor) for name, tensor in batch.stacked.items()}
    assert stacked == {name: value["tensor"] for name, value in expected.items() if value and "tensor" in value}
    assert ragged == {name: value["list"] for name, value in expected.items() if value and "list" in value}


def _twice(file: Described) -> bool:
    """Return whether two keys differ in nothing but the dtype at their end."""
    return len({key.removesuffix(f"_{dtype}") for key, (dtype, _) in file.items()}) < len(file)


def _mixed(files: Sequence[Described]) -> bool:
    """Return whether files have other tensors than one another, or other shapes where these must agree."""
    stacked = ({key: shape for key, (_, shape) in file.items() if not key.startswith("varlen_")} for file in files)
    names = [{re.sub(r"_[a-z]+\d+$", "", key): shape for key, shape in shapes.items()} for shapes in stacked]
    return any(other != names[0] for other in names[1:])


def _tensors(described: Described) -> dict[str, Tensor]:
    return {
        content_name(key): torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (dtype, shape) in described.items()
    }


def _described(tensor: Tensor) -> list[object]:
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
