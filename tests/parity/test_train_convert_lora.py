"""Names in the reference's layout and in the common ones turn into one another as the reference's converter does it."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.networks.keys import LAYOUTS, flat, split
from tests.parity.cases import vector, vector_stems

CASES = [case for stem in vector_stems("train_convert_lora") for case in vector(stem)["cases"]]
NAMES = [case for case in CASES if case["kind"] == "to_other"]


@pytest.mark.parametrize("case", NAMES, ids=[case["id"] for case in NAMES])
def test_train_convert_lora_names_equal_the_reference(case: dict[str, Any]) -> None:
    module, form = case["true_module"], LAYOUTS["diffusers"]

    keys = [form.key(module, "down"), form.key(module, "up")]

    assert LAYOUTS["reference"].key(module, "down") == f"{case['lora_name']}.lora_down.weight"
    assert [split(key) for key in keys] == [(module, "down"), (module, "up")]
    assert split(f"{case['lora_name']}.lora_up.weight") == (flat(module), "up")
    if case["ref_correct"]:  # elsewhere the reference parses underscores back and misses (spec/training.md 8.1, 17)
        assert keys == case["ref_keys"]


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CASES} - {"to_other"}))
def test_train_convert_lora_other_kinds(kind: str) -> None:
    pytest.skip(f"{kind}: conversion of whole files arrives with issue 4")
