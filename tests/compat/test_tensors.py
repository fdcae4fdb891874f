from __future__ import annotations

import pytest

from musubi.cache.format import content_name
from musubi.compat.tensors import lacking
from tests.parity.cases import vector_cases

CASES = [case for case in vector_cases("data_cache_tensors") if not case["case"].endswith("only")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['arch']}-{case['case']}")
def test_nothing_is_missing_from_what_the_reference_writes(case: dict[str, object]) -> None:
    keys = case["tensors"]
    assert isinstance(keys, dict)
    names = {content_name(key): None for key in keys}

    assert lacking(names, architecture=str(case["arch"]), text=case["kind"] == "te") == ()


def test_a_second_encoder_that_never_ran_is_missed() -> None:
    assert lacking({"llm": None, "llm_mask": None}, architecture="hv", text=True) == ("clipL", "clipL_mask")


def test_an_architecture_that_is_not_known_needs_latents_and_any_text() -> None:
    assert lacking({}, architecture="toy", text=False) == ("latents",)
    assert lacking({}, architecture="toy", text=True) == ()
