"""The frames that are kept of long clips, where the rounding of the reference's running sum shows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from musubi.data.rates import StatedRate
from musubi.data.sample import Probe
from tests.parity.cases import vector, vector_stems


def _cases() -> list[dict[str, Any]]:
    files = [vector(stem) for stem in vector_stems("data_fps_long")]
    return [dict(zip(file["columns"], row, strict=True)) for file in files for row in file["cases"]]


@pytest.mark.parametrize("case", _cases(), ids=lambda c: f"{c['source_fps']}-{c['target_fps']}-{c['n']}")
def test_data_fps_long(case: dict[str, Any]) -> None:
    clip = Probe(kind="video", size=(32, 32), frames=case["n"])

    kept = StatedRate(source_fps=case["source_fps"]).frames(clip, fps=case["target_fps"])

    assert (len(kept), kept[-1]) == (case["kept_count"], case["last_kept"])
    assert hashlib.sha256(",".join(map(str, kept)).encode()).hexdigest()[:16] == case["checksum"]
