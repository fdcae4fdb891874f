"""LoRAs extracted from two checkpoints are the reference's: its factors, its clamp, its choice of rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi.networks.extract import extracted
from musubi.networks.file import LoRAFile
from musubi.networks.weights import LoRAWeights
from tests.parity.cases import vector_cases

CASES = [case for case in vector_cases("train_numerics") if case["kind"] == "qwen_extract"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_numerics_extract_the_product_equals_the_reference(case: dict[str, Any]) -> None:
    delta = torch.tensor(case["delta"])
    before = torch.zeros_like(delta)

    found = extracted([("q", before, delta)], rank=case["dim"], clamp=case["clamp_quantile"])["q"]

    assert isinstance(found, LoRAWeights)
    assert float(found.alpha) == found.rank == case["alpha"]
    torch.testing.assert_close(found.up @ found.down, torch.tensor(case["up_at_down"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_numerics_extract_tensors_have_the_references_names_and_shapes(case: dict[str, Any]) -> None:
    shapes = {name: tuple(shape) for name, (shape, _) in case["keys"].items()}
    ups = {name.removesuffix(".lora_up.weight"): shape for name, shape in shapes.items() if "lora_up" in name}
    torch.manual_seed(0)
    pairs = [
        (name.removeprefix("lora_unet_"), torch.zeros(out, inputs), torch.randn(out, inputs))
        for name, (out, _) in ups.items()
        for inputs in (shapes[f"{name}.lora_down.weight"][1],)
    ]

    found = LoRAFile.extract(pairs, rank=case["dim"], clamp=case["clamp_quantile"]).tensors("reference")

    assert found.keys() == shapes.keys()
    for name, (outputs, rank) in ups.items():
        inputs = shapes[f"{name}.lora_down.weight"][1]
        assert rank == min(case["dim"], inputs, outputs)
        assert found[f"{name}.lora_up.weight"].shape == (outputs, rank)
