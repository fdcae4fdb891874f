"""The table of buckets of a resolution, equal to the reference's; what it crashes on is refused here."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.data.buckets import table
from tests.parity.cases import vector_cases


@pytest.mark.parametrize(
    "case", vector_cases("data_bucket_list"), ids=lambda case: f"{case['resolution']}-{case['step']}"
)
def test_data_bucket_list(case: dict[str, Any]) -> None:
    width, height = case["resolution"]
    if not isinstance(case.get("buckets"), list):
        with pytest.raises(ValueError, match="is too small"):
            table((width, height), case["step"])
        return

    assert [list(bucket) for bucket in table((width, height), case["step"])] == case["buckets"]
