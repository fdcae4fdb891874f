from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.optim.rounding import copy_stochastic

floats = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**126), max_value=2.0**126)


def _rounded(source: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    target = torch.full_like(source, 7.0, dtype=torch.bfloat16)
    copy_stochastic(target, source)
    return target


@given(values=st.lists(floats, min_size=1, max_size=20), seed=st.integers(0, 1000))
def test_what_bfloat16_can_hold_stays_as_it_is(values: list[float], seed: int) -> None:
    exact = torch.tensor(values).to(torch.bfloat16)

    assert torch.equal(_rounded(exact.float(), seed), exact)


@given(values=st.lists(floats, min_size=1, max_size=20), seed=st.integers(0, 1000))
def test_a_value_becomes_one_of_its_two_neighbours(values: list[float], seed: int) -> None:
    source = torch.tensor(values)
    below = (source.view(torch.int32) & -65536).view(torch.float32)  # towards zero
    above = ((source.view(torch.int32) & -65536) + 65536).view(torch.float32)

    rounded = _rounded(source, seed).float()

    assert bool(((rounded == below) | (rounded == above)).all())


@given(share=st.floats(0, 1), negative=st.booleans())
def test_the_mean_of_many_roundings_is_the_value(*, share: float, negative: bool) -> None:
    value = (1.0 + share / 128) * (-1 if negative else 1)  # between two neighbours 1/128 apart

    mean = float(_rounded(torch.full((20_000,), value)).double().mean())

    assert abs(mean - value) < 5 * (1 / 128) * 0.5 / 20_000**0.5


def test_what_is_not_finite_stays_so() -> None:
    strange = torch.tensor([0x7F800000, -0x00800000, 0x7FFFFFFF, 0x7F800001], dtype=torch.int32).view(torch.float32)

    for seed in range(20):
        rounded = _rounded(strange, seed)

        assert torch.equal(rounded[:2].float(), torch.tensor([torch.inf, -torch.inf]))
        assert bool(rounded[2:].isnan().all())


def test_small_updates_are_not_lost() -> None:
    weights = torch.ones(10_000, dtype=torch.bfloat16)
    torch.manual_seed(0)

    for _ in range(100):
        copy_stochastic(weights, weights.float() - 1e-4)

    torch.testing.assert_close(weights.float().mean(), torch.tensor(0.99), rtol=0, atol=1e-3)
    assert torch.equal(torch.ones(1, dtype=torch.bfloat16) - 1e-4, torch.ones(1, dtype=torch.bfloat16))  # to nearest


def test_the_same_seed_rounds_the_same_way_whatever_the_strides() -> None:
    source = torch.randn(6, 4)

    assert not source.T.is_contiguous()
    assert torch.equal(_rounded(source.T, 3), _rounded(source.T.contiguous(), 3))
