from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.memory import fp8
from musubi.memory.fp8 import Mode


def test_quantising_leaves_the_weight_as_it_was() -> None:
    weight = torch.randn(4, 128)
    before = weight.clone()

    fp8.quantise(weight)

    assert torch.equal(weight, before)


@pytest.mark.parametrize("mode", ["block", "channel", "tensor"])
def test_chunks_do_not_change_a_bit(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 192, generator=torch.Generator().manual_seed(0)).bfloat16()
    whole = fp8.quantise(weight, mode=mode)

    monkeypatch.setattr(fp8, "CHUNK_ELEMENTS", 500)
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


@pytest.mark.parametrize(
    ("shape", "mode", "expected"),
    [
        ((3, 128), "block", "block"),
        ((3, 96), "block", "channel"),
        ((3, 96), "tensor", "tensor"),
        ((5,), "block", "tensor"),
    ],
)
def test_what_does_not_divide_falls_back(shape: tuple[int, ...], mode: Mode, expected: Mode) -> None:
    assert fp8.effective_mode(shape, mode, 64) == expected
    assert fp8.quantise(torch.ones(shape), mode=mode)[1].shape == fp8.scale_shape(shape, mode=mode)


def test_nan_becomes_zero_and_infinity_the_largest_value() -> None:
    weight = torch.zeros(1, 64)
    weight[0, 0], weight[0, 1] = float("nan"), 1.0

    stored, scale = fp8.quantise(weight)

    assert scale.isnan().all()
    assert (stored.float() == 0).all()
