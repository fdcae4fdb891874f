"""The table of buckets of a resolution, equal to the reference's."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.data.buckets import table
from tests.parity.cases import vector, vector_stems

CASES: list[dict[str, Any]] = [case for stem in vector_stems("data_bucket_list") for case in vector(stem)["cases"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['resolution']}-{case['step']}")
def test_data_bucket_list(case: dict[str, Any]) -> None:
    if not isinstance(case.get("buckets"), list):
        pytest.skip("the reference crashes on areas below two steps; ours refuses them with a reason")

    width, height = case["resolution"]

    assert [list(bucket) for bucket in table((width, height), case["step"])] == case["buckets"]
