from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.networks.weights import LoRAWeights


def _weights(alpha: float, rank: int = 3) -> LoRAWeights:
    generator = torch.Generator().manual_seed(rank)
    down, up = torch.randn(rank, 5, generator=generator), torch.randn(4, rank, generator=generator)
    return LoRAWeights(down, up, torch.tensor(alpha))


@given(alpha=st.floats(1e-3, 1e3), rank=st.integers(1, 8))
def test_folding_alpha_keeps_the_delta(alpha: float, rank: int) -> None:
    weights = _weights(alpha, rank)

    folded = weights.folded()

    assert folded.strength == 1
    torch.testing.assert_close(
        folded.delta(), weights.delta(), rtol=1e-5, atol=1e-6 * float(weights.delta().abs().max())
    )


@pytest.mark.parametrize("alpha", [0.0, -2.0])
def test_folding_copes_with_any_alpha(alpha: float) -> None:
    torch.testing.assert_close(_weights(alpha).folded().delta(), _weights(alpha).delta())


@given(weight=st.floats(-4, 4))
def test_scaling_scales_the_delta_and_leaves_alpha(weight: float) -> None:
    weights = _weights(2.0)

    torch.testing.assert_close(weights.scaled(weight).delta(), weight * weights.delta())
    assert weights.scaled(weight).alpha == 2


def test_the_delta_of_a_convolution_has_its_kernels_shape() -> None:
    weights = LoRAWeights(torch.randn(2, 3, 3, 3), torch.randn(4, 2, 1, 1), torch.tensor(2.0))

    expected = torch.einsum("or,rihw->oihw", weights.up[:, :, 0, 0], weights.down)

    torch.testing.assert_close(weights.delta(), expected)


def test_an_alpha_of_eight_digits_survives_half_precision() -> None:
    assert _weights(0.3).to(torch.bfloat16).alpha == torch.tensor(0.3)
