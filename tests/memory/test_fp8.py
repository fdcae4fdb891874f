from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from musubi.memory import fp8, scales
from musubi.memory.scales import Mode


def test_quantising_leaves_the_weight_as_it_was() -> None:
    weight = torch.randn(4, 128)
    before = weight.clone()

    fp8.quantise(weight)

    assert torch.equal(weight, before)


@pytest.mark.parametrize("mode", ["block", "channel", "tensor"])
def test_chunks_do_not_change_a_bit(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 192, generator=torch.Generator().manual_seed(0)).bfloat16()
    whole = fp8.quantise(weight, mode=mode)

    monkeypatch.setattr(scales, "CHUNK_ELEMENTS", 500)
    chunked = fp8.quantise(weight, mode=mode)

    assert torch.equal(whole[0].view(torch.uint8), chunked[0].view(torch.uint8))
    assert torch.equal(whole[1], chunked[1])


@given(rows=st.integers(1, 5), blocks=st.integers(1, 3), size=st.sampled_from([1e-6, 1.0, 1e4]))
@settings(max_examples=25, deadline=None)
def test_a_weight_comes_back_within_half_a_step(rows: int, blocks: int, size: float) -> None:
    weight = torch.randn(rows, 64 * blocks, generator=torch.Generator().manual_seed(rows)) * size

    stored, scale = fp8.quantise(weight)

    step = torch.maximum(weight.abs() * 2.0**-4, scale.expand(-1, -1, 64).reshape(weight.shape) * 2.0**-10)
    assert ((fp8.dequantise(stored, scale) - weight).abs() <= step * 1.001).all()


def _plainly(weight: Tensor, mode: Mode) -> tuple[Tensor, Tensor]:
    """Return what the reference's own lines say: all at once, every step for every number."""
    groups = scales.grouped(weight, scales.scale_shape(weight.shape, mode=mode))
    largest = groups.abs().amax(dim=-1, keepdim=True) if mode != "tensor" else groups.abs().amax()
    scale = (largest / 448.0).clamp(min=1e-8)
    quotient = (groups.float() / scale.float()).nan_to_num(0.0).clamp(-448.0, 448.0)
    return quotient.to(torch.float8_e4m3fn).view(weight.shape), scale


@given(
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    mode=st.sampled_from(["block", "channel", "tensor"]),
    size=st.sampled_from([1e-9, 1e-6, 0.02, 1.0, 1e4]),
    special=st.sampled_from([None, 0.0, float("inf"), float("-inf"), float("nan"), 3e-8]),
)
@settings(max_examples=150, deadline=None)
def test_the_shortcuts_do_not_change_a_bit(
    seed: int, dtype: torch.dtype, mode: Mode, size: float, special: float | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(6, 128, generator=generator) * size).to(dtype)
    if special is not None:
        weight[2, 3:9] = weight[5, 64:] = special

    stored, scale = fp8.quantise(weight, mode=mode)

    expected, expected_scale = _plainly(weight, mode)
    assert torch.equal(stored.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(scale.nan_to_num(-1.0), expected_scale.nan_to_num(-1.0))


def test_nan_becomes_zero_and_infinity_the_largest_value() -> None:
    weight = torch.zeros(1, 64)
    weight[0, 0], weight[0, 1] = float("nan"), 1.0

    stored, scale = fp8.quantise(weight)

    assert scale.isnan().all()
    assert (stored.float() == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_stored_number_comes_back_as_itself(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    stored = codes[(codes & 0x7F) != 0x7F].view(torch.float8_e4m3fn)

    assert torch.equal(fp8.dequantise(stored, torch.ones((), dtype=dtype)), stored.to(dtype))
