"""Merging into the base weights gives the reference's weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.networks.file import LoRAFile
from musubi.networks.merge import Merge
from musubi.networks.weights import LoRAWeights
from tests.parity.cases import vector, vector_stems

CASES = [case for stem in vector_stems("infer_lora_merge") for case in vector(stem)["cases"]]
_SMALLEST_STEP = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10, torch.float8_e4m3fn: 0.0, torch.float32: 0.0}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_infer_lora_merge_equals_the_reference(case: dict[str, Any]) -> None:
    dtype: torch.dtype = getattr(torch, case["weight_dtype"])
    base = torch.tensor(case["weight"]).to(dtype)
    # Missing multipliers are 1, surplus ones are dropped (the reference's command line; here weights come in pairs).
    multipliers = [*case["multipliers"], *[1.0] * len(case["loras"])][: len(case["loras"])]
    merge = Merge(tuple((_file(lora), weight) for lora, weight in zip(case["loras"], multipliers, strict=True)))

    merged = merge("blocks.0.q.weight", base)

    # The reference returns a bf16 base as float32 when the LoRA is float32; here a weight keeps its type.
    assert merged.dtype == dtype
    expected = torch.tensor(case["merged"]).to(dtype).float()
    step = _SMALLEST_STEP.get(dtype, 0.0)
    assert ((merged.float() - expected).abs() <= 1e-4 + step * expected.abs()).all()
    merge.check()


@pytest.mark.parametrize("case", CASES[:1], ids=[case["id"] for case in CASES[:1]])
def test_infer_lora_merge_leaves_a_bias_alone(case: dict[str, Any]) -> None:
    bias = torch.ones(4)
    merge = Merge(((_file(case["loras"][0]), 1.0),))

    assert case["bias_unchanged"]
    assert merge("blocks.0.q.bias", bias) is bias


def _file(lora: dict[str, Any]) -> LoRAFile:
    down, up = (torch.tensor(lora[f"lora_{part}.weight"], dtype=torch.float32) for part in ("down", "up"))
    alpha: Tensor = torch.tensor(float(lora.get("alpha", down.shape[0])))
    return LoRAFile(modules={"blocks_0_q": LoRAWeights(down, up, alpha)})
