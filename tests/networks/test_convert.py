from __future__ import annotations

import pytest
import torch

from musubi.networks.convert import Precision, cast, written
from musubi.networks.keys import LAYOUTS
from tests.networks.weighted import KINDS, lora, weights_of


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_loras_alpha_can_be_folded_in(kind: str) -> None:
    with_alpha = written(weights_of(kind), LAYOUTS["comfy"], "float32")
    without = written(weights_of(kind), LAYOUTS["peft"], "float32")

    assert "alpha" in with_alpha
    assert ("alpha" in without) == (kind not in {"lora", "dora"})


def test_folding_comes_before_rounding() -> None:
    weights = lora(alpha=0.7)

    rounded = written(weights, LAYOUTS["peft"], "bfloat16")

    exact = written(weights, LAYOUTS["peft"], "float32")
    assert all(torch.equal(tensor, exact[role].bfloat16()) for role, tensor in rounded.items())


def test_half_precision_is_widened_before_folding() -> None:
    half = lora(alpha=0.7).to(torch.bfloat16)

    found = written(half, LAYOUTS["peft"], "float32")

    torch.testing.assert_close(found["up"] @ found["down"], half.delta(), rtol=1e-6, atol=1e-6)


def test_magnitudes_are_a_column_where_programs_multiply_rows_by_them() -> None:
    assert written(weights_of("dora"), LAYOUTS["comfy"], "float32")["dora_scale"].shape == (6, 1)
    assert written(weights_of("dora"), LAYOUTS["diffusers"], "float32")["dora_scale"].shape == (6,)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "as is"])
def test_alpha_is_never_rounded(precision: Precision) -> None:
    alpha = cast(lora(alpha=0.7), precision).alpha

    assert alpha.dtype == torch.float32
    assert float(alpha) == pytest.approx(0.7, abs=1e-7)
