from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.noise.multistep import Estimate, first_order, position, whole_thousandths


def test_lambda_is_infinite_at_both_ends() -> None:
    assert (position(0.0), position(0.5), position(1.0)) == (math.inf, 0.0, -math.inf)


@given(st.floats(0.01, 1.0), st.floats(0.0, 0.99), st.floats(-2, 2), st.floats(-2, 2))
def test_a_constant_estimate_is_followed_exactly(sigma: float, share: float, clean: float, noise: float) -> None:
    target = share * sigma
    x = torch.tensor([(1 - sigma) * clean + sigma * noise], dtype=torch.float64)

    reached, _, _ = first_order(x, Estimate(sigma, torch.tensor([clean], dtype=torch.float64)), target)

    assert reached.item() == pytest.approx((1 - target) * clean + target * noise, abs=1e-9)


@given(st.integers(0, 1000))
def test_a_whole_thousandth_survives_float32(time: int) -> None:
    assert whole_thousandths(torch.tensor(time / 1000).item()) == time / 1000


def test_what_lies_between_is_cut() -> None:
    assert whole_thousandths(0.9379) == 0.937
