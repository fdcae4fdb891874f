"""Resized and cropped pixels, equal to the reference's: Pillow's Lanczos to the bit, OpenCV's area averages too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from musubi.data.buckets import fit
from musubi.data.media.resize import to_bucket
from tests.parity.cases import vector, vector_stems

CASES: list[dict[str, Any]] = [case for stem in vector_stems("data_resize_pixels") for case in vector(stem)["cases"]]
TOLERANCE = {"none": 0, "area": 0, "lanczos": 1}
"""The vector's own is 1, for other versions of the libraries: Pillow enlarges. To shrink is our own code."""


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['w']}x{c['h']}x{c['channels']}-{c['bucket']}")
def test_data_resize_pixels(case: dict[str, Any]) -> None:
    y, x, channel = np.mgrid[0 : case["h"], 0 : case["w"], 0 : case["channels"]]
    source = ((17 * x + 31 * y + 53 * channel + 7 * x * y) % 256).astype(np.uint8)
    width, height = case["bucket"]

    result = to_bucket(source, (width, height))

    expected = np.array(case["out"])
    assert result.shape == expected.shape
    assert (
        np.abs(result.astype(np.int64) - expected).max()
        <= TOLERANCE[fit((case["w"], case["h"]), (width, height)).method]
    )
