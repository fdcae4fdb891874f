from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.core.errors import WeightsError
from musubi.networks.spectrum import norm, side_by_side, spectrum
from musubi.networks.weights import LoHaWeights, LoRAWeights
from tests.networks.weighted import lora, weights_of

ADDITIVE = ("lora", "loha", "lokr", "lokr_whole")


@pytest.mark.parametrize("kind", ADDITIVE)
@pytest.mark.parametrize(("out", "width"), [(6, 8), (20, 14), (4, 30)])
def test_the_singular_values_are_those_of_the_delta(kind: str, out: int, width: int) -> None:
    weights = weights_of(kind, out, width)

    found = spectrum(weights)

    expected = torch.linalg.svdvals(weights.delta().double())
    torch.testing.assert_close(found.values, expected[: len(found.values)], rtol=1e-5, atol=1e-6)
    assert found.norm == pytest.approx(float(expected.norm()), rel=1e-6)
    torch.testing.assert_close((found.left * found.values @ found.right).float(), weights.delta(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ADDITIVE)
def test_a_lora_of_full_rank_has_the_same_delta(kind: str) -> None:
    weights = weights_of(kind)

    torch.testing.assert_close(spectrum(weights).lora(99).delta(), weights.delta(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_the_sign_of_alpha_is_kept(kind: str) -> None:
    weights = weights_of(kind, alpha=-2.0)

    torch.testing.assert_close(spectrum(weights).lora(99).delta(), weights.delta(), rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(rank=st.integers(1, 6), seed=st.integers(0, 99))
def test_no_lora_of_that_rank_is_nearer(rank: int, seed: int) -> None:
    weights = lora(12, 10, rank=6, seed=seed)

    near = spectrum(weights).lora(rank)

    dense = torch.linalg.svdvals(weights.delta().double())
    assert near.rank == rank
    assert float((near.delta() - weights.delta()).norm()) == pytest.approx(float(dense[rank:].norm()), abs=2e-5)


@settings(max_examples=20, deadline=None)
@given(keep=st.floats(0.05, 1.0), seed=st.integers(0, 99))
def test_the_least_rank_that_keeps_a_share_of_the_norm_is_found(keep: float, seed: int) -> None:
    found = spectrum(lora(12, 10, rank=6, seed=seed))

    rank = found.rank_for(keep)

    squares = found.values.square()
    assert math.sqrt(float(squares[:rank].sum() / squares.sum())) >= keep * (1 - 1e-9)
    assert rank == 1 or math.sqrt(float(squares[: rank - 1].sum() / squares.sum())) < keep


def test_an_adapter_without_effect_becomes_one_of_rank_1() -> None:
    zero = LoRAWeights(torch.randn(3, 8), torch.zeros(6, 3), torch.tensor(1.0))
    found = spectrum(zero)

    assert found.rank_for(0.9) == 1
    assert found.lora(found.rank_for(0.9)).zero_effect


def test_a_wide_loha_is_taken_as_a_matrix() -> None:
    torch.manual_seed(0)
    matrices = (torch.randn(6, 4), torch.randn(4, 8), torch.randn(6, 4), torch.randn(4, 8))
    wide = LoHaWeights(*matrices, torch.tensor(4.0))

    torch.testing.assert_close(spectrum(wide).lora(6).delta(), wide.delta(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dora", "convolution"])
def test_what_has_no_singular_values_of_its_own_is_refused(kind: str) -> None:
    kernel = LoRAWeights(torch.zeros(2, 4, 1, 2, 2), torch.zeros(6, 2, 1, 1, 1), torch.tensor(1.0))

    with pytest.raises(WeightsError, match="merge it into a checkpoint"):
        spectrum(kernel if kind == "convolution" else weights_of("dora"))


@pytest.mark.parametrize("kind", ADDITIVE)
def test_the_norm_needs_no_delta(kind: str) -> None:
    weights = weights_of(kind, alpha=-1.5)

    assert norm(weights) == pytest.approx(float(weights.delta().norm()), rel=1e-5)


def test_a_large_norm_takes_little_memory() -> None:
    wide = LoRAWeights(torch.ones(1, 1 << 20), torch.ones(1 << 20, 1), torch.tensor(1.0))  # a delta of 4 TiB

    assert norm(wide) == pytest.approx(2**20)
    assert spectrum(wide).norm == pytest.approx(2**20)


def test_loras_side_by_side_are_their_weighted_sum() -> None:
    first, second = lora(rank=3, alpha=2.0), lora(rank=2, alpha=5.0, seed=1)

    both = side_by_side([first, second], [0.5, -2.0])

    assert (both.rank, both.strength) == (5, 1.0)
    torch.testing.assert_close(both.delta(), 0.5 * first.delta() - 2 * second.delta())
