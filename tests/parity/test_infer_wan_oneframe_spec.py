"""Where single frames lie in time, as the reference reads its option.

It passes over words that mean nothing to it (those of FramePack among them), and lets the picture to make share the
place of a control picture, which then is denoised as well (spec 2.7, a quirk); both are refused here.
"""

from __future__ import annotations

from typing import Any

import pytest

from musubi.core.errors import ConfigError
from musubi.inference.single_frame import SingleFrame
from tests.parity.cases import vector_cases

KNOWN = {"target_index", "control_index", "default"}


def defect(case: dict[str, Any]) -> bool:
    words = {part.partition("=")[0].strip() for part in case["spec"].split(",")}
    return not words <= KNOWN or len(set(case["frame_positions"])) < len(case["frame_positions"])


@pytest.mark.parametrize("case", vector_cases("infer_wan_oneframe_spec"), ids=lambda case: str(case["id"]))
def test_infer_wan_oneframe_spec(case: dict[str, Any]) -> None:
    if defect(case):
        with pytest.raises(ConfigError):
            SingleFrame.parse(case["spec"])
        return

    single = SingleFrame.parse(case["spec"])

    assert single.target == case["target_index"]
    assert list(single.controls) == case["control_indices"]
    assert list(single.positions) == case["frame_positions"]
    assert single.positions.index(single.target) == case["extract_at"]
