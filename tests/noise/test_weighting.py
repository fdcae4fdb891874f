from __future__ import annotations

import math

import pytest
import torch

from musubi.noise.weighting import CosMap, NoWeighting, SigmaSqrt, Weighting

ALL = (NoWeighting(), SigmaSqrt(), CosMap())


@pytest.mark.parametrize("weighting", ALL, ids=lambda w: w.kind)
def test_every_item_gets_one_positive_float32_weight(weighting: Weighting) -> None:
    weights = weighting.weights(torch.tensor([0.01, 0.5, 0.99]))

    assert (weights.shape, weights.dtype) == ((3,), torch.float32)
    assert weights.min() > 0


@pytest.mark.parametrize("weighting", ALL, ids=lambda w: w.kind)
def test_a_weighting_survives_toml(weighting: Weighting) -> None:
    assert Weighting.from_toml(weighting.to_toml()) == weighting


def test_the_cosine_map_is_a_density() -> None:
    sigma = (torch.arange(10_000) + 0.5) / 10_000

    assert CosMap().weights(sigma).mean().item() == pytest.approx(1.0, abs=1e-4)
    assert CosMap().weights(torch.tensor([0.5])).item() == pytest.approx(4 / math.pi)


def test_sigma_sqrt_is_the_inverse_square() -> None:
    assert SigmaSqrt().weights(torch.tensor([0.5])).item() == pytest.approx(4.0)


def test_sigma_sqrt_stays_finite_next_to_the_data() -> None:
    weights = SigmaSqrt().weights(torch.tensor([0.0, 1e-7, 0.001]))

    assert weights.tolist() == pytest.approx([1e6] * 3)


def test_a_floor_caps_the_weight() -> None:
    assert SigmaSqrt(floor=0.1).weights(torch.tensor([0.01, 0.2])).tolist() == pytest.approx([100, 25])
