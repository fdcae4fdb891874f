"""The windows cut from a clip and the names of their cache files, equal to the reference's."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.cache.format import SUFFIX, latent_label
from musubi.data.windows import Head
from tests.parity.cases import vector, vector_stems

CASES: list[dict[str, Any]] = [case for stem in vector_stems("data_frame_windows") for case in vector(stem)["cases"]]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['mode']}-{c['n']}-{c['target_frames']}-{c['source_fps']}")
def test_data_frame_windows(case: dict[str, Any]) -> None:
    if case["effective_mode"] != "head":
        pytest.skip(f"windows of kind {case['effective_mode']!r} are issue 3")
    if case["source_fps"] is not None:
        pytest.skip("fps conversion is issue 3")
    if isinstance(case["windows"], str):
        pytest.skip("a defect of the reference: lengths below 1 crash it; a dataset refuses them by name")

    windows = Head().cut(case["n"], case["effective_target_frames"])

    # Lengths that round to the same value are emitted twice by v0.2.13, a defect that later versions mend.
    expected = list(dict.fromkeys(map(tuple, case["windows"])))
    assert [(window.start, window.count) for window in windows] == expected
    names = [
        latent_label(f"clip_{case['n']:04d}", size=(32, 32), suffix=case["arch"], window=window) + SUFFIX
        for window in windows
    ]
    assert names == list(dict.fromkeys(case["cache_names"]))
