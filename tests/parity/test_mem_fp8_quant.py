"""The reference's fp8 quantisation, bit for bit: stored bits, scales, dequantised weights, and a Linear on top."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from musubi.memory import fp8, scales
from musubi.memory.formats import FP8
from musubi.memory.quant_linear import QuantLinear
from tests.parity import cases

FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
STEMS = cases.vector_stems("mem_fp8_quant")
CASES = [(stem, case) for stem in STEMS for case in cases.vector(stem)["cases"]]
each_case = pytest.mark.parametrize(("stem", "case"), CASES, ids=[f"{stem}-{case['name']}" for stem, case in CASES])


@pytest.fixture(scope="module")
def tensors() -> dict[str, dict[str, Tensor]]:
    return {stem: load_file(cases.vectors_folder() / f"{stem}.safetensors") for stem in STEMS}


@each_case
def test_mem_fp8_quant_bits_and_scales(stem: str, case: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
    known, name = tensors[stem], case["name"]

    stored, scale = _quantised(known, case)

    assert (
        scales.effective_mode(known[case["weight"]].shape, case["requested_mode"], case["block_size"])
        == (case["effective_mode"])
    )
    assert list(stored.shape) == case["q_shape"]
    assert _same_bits(stored, known[f"{name}.q"])
    assert _same_bits(scale, known[f"{name}.scale"])
    assert _same_bits(fp8.dequantise(stored, scale), known[f"{name}.deq"])


@pytest.mark.parametrize(
    ("stem", "case"),
    [pair for pair in CASES if pair[1].get("forward")],
    ids=[f"{stem}-{case['name']}" for stem, case in CASES if case.get("forward")],
)
def test_mem_fp8_quant_linear(stem: str, case: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
    known = cases.part(tensors[stem], f"{case['name']}.")
    linear = _linear(tensors[stem], case, known)
    value = known["x"].clone().requires_grad_()

    output = linear(value)
    output.backward(known["gy"])

    assert value.grad is not None
    assert _within_an_ulp(output, known["y"])
    assert _within_an_ulp(value.grad, known["dx"])


def _quantised(known: dict[str, Tensor], case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return fp8.quantise(
        known[case["weight"]],
        mode=case["requested_mode"],
        block=case["block_size"],
        dtype=FORMATS[case["format"]],
    )


def _linear(known: dict[str, Tensor], case: dict[str, Any], own: dict[str, Tensor]) -> QuantLinear:
    weight = known[case["weight"]]
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=weight.dtype)
    made = QuantLinear.of(linear, format=FP8(case["requested_mode"], block=case["block_size"]))
    stored, scale = _quantised(known, case)
    for name, tensor in {"weight": stored, "scale": scale, "bias": own["bias"]}.items():
        made.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return made


def _same_bits(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.equal(_bits(found), _bits(expected))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _within_an_ulp(found: Tensor, expected: Tensor) -> bool:
    steps = (_ordered(found) - _ordered(expected)).abs()
    return found.dtype == expected.dtype and bool((steps <= 1).all())


def _ordered(tensor: Tensor) -> Tensor:
    """Return 16-bit floats as whole numbers in the same order, neighbours one apart."""
    bits = tensor.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
