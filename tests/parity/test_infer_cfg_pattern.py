from __future__ import annotations

from typing import Any

import pytest

from musubi.noise.guidance import NEGATIVE, ClassifierFree, Step
from tests.parity.cases import vector_cases


@pytest.mark.parametrize("case", vector_cases("infer_cfg_pattern"), ids=lambda case: case["id"])
def test_infer_cfg_pattern(case: dict[str, Any]) -> None:
    """A mode without a ratio, and a ratio without a mode, guide every step there; here there is only one way to say so.

    The vectors know no such ratios as 1.5 or -1.
    """
    mode, ratio, steps = case["mode"], case["ratio"], case["steps"]
    plain = mode in (None, "none") or ratio is None
    rule = ClassifierFree(scale=5.0) if plain else ClassifierFree(scale=5.0, skip=mode, ratio=ratio)

    asked = [rule.branches(Step(index=index, total=steps, sigma=0.5)) for index in range(steps)]

    assert "".join("A" if NEGATIVE in branches else "S" for branches in asked) == case["pattern"]
