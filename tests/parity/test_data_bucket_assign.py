"""The bucket of an image, and the resize and crop that lead there, equal to the reference's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from musubi.data.buckets import Buckets, fit
from tests.parity.cases import vector, vector_stems


def _rows() -> list[dict[str, Any]]:
    found = [vector(stem) for stem in vector_stems("data_bucket_assign")]
    return [dict(zip(file["columns"], row, strict=True)) for file in found for row in file["cases"]]


GROUPS = {
    f"{width}x{height}": list(rows)
    for (width, height), rows in itertools.groupby(
        sorted(_rows(), key=lambda row: (row["img_w"], row["img_h"])), key=lambda row: (row["img_w"], row["img_h"])
    )
}


@pytest.mark.parametrize("size", GROUPS)
def test_data_bucket_assign(size: str) -> None:
    assert [_ours(row) for row in GROUPS[size]] == [_theirs(row) for row in GROUPS[size]]


def _ours(row: dict[str, Any]) -> tuple[object, ...]:
    bucket = Buckets(
        resolution=(row["res_w"], row["res_h"]),
        step=row["step"],
        enabled=bool(row["enable_bucket"]),
        no_upscale=bool(row["no_upscale"] and row["enable_bucket"]),
    ).choose((row["img_w"], row["img_h"]))
    if 0 in bucket:
        return (*bucket, "invalid")
    plan = fit((row["img_w"], row["img_h"]), bucket)
    return (*bucket, plan.method, *plan.resized, plan.left, plan.top)


def _theirs(row: dict[str, Any]) -> tuple[object, ...]:
    bucket = (row["bucket_w"], row["bucket_h"])
    if row["method"] == "invalid":
        return (*bucket, "invalid")
    return (*bucket, row["method"], row["resize_w"], row["resize_h"], row["crop_left"], row["crop_top"])
