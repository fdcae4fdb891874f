from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.noise.mixture import Mixture
from musubi.noise.timesteps import LogitNormal, Mode, ResolutionShift, TimestepSampler, Uniform

HYBRID = Mixture(
    samplers=(ResolutionShift(), LogitNormal(mean=3.0, std=1.0), LogitNormal(mean=-2.68, std=0.5)),
    weights=(0.8, 0.075, 0.125),
)
SHARES = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98]).double()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_freely(mixture: Mixture, count: int) -> torch.Tensor:
    """Decide for each draw, then draw: what a mixture means."""
    decision = torch.rand(count, generator=generator(7), dtype=torch.float64)
    edges = torch.tensor(mixture.parts).double().cumsum(0)[:-1]
    drawn = [s.sample(count, tokens=1024, generator=generator(i)) for i, s in enumerate(mixture.samplers)]
    return torch.stack(drawn).gather(0, torch.bucketize(decision, edges)[None])[0].double()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.1, 0.9)])
def test_a_mixture_draws_as_deciding_first_does(low: float, high: float) -> None:
    limited = HYBRID.replace(low=low, high=high, preserve_shape=True).place(SHARES, tokens=1024).double()

    free = drawn_freely(HYBRID, 200_000)
    kept = free[(free >= low) & (free <= high)]
    assert [(kept < level).double().mean().item() for level in limited] == pytest.approx(SHARES.tolist(), abs=0.005)


def test_weights_count_by_their_ratios() -> None:
    one, other = (HYBRID.replace(weights=tuple(scale * w for w in HYBRID.weights)) for scale in (1, 40))

    assert torch.equal(one.place(SHARES, tokens=64), other.place(SHARES, tokens=64))
    assert sum(other.parts) == pytest.approx(1)


def test_samplers_keep_their_own_limits() -> None:
    mixture = Mixture(samplers=(Uniform(high=0.2), Uniform(low=0.8)), weights=(1, 3))

    sigma = mixture.place(torch.tensor([0.125, 0.24, 0.26, 0.625]), tokens=1)

    torch.testing.assert_close(sigma, torch.tensor([0.1, 0.192, 0.8 + 0.2 / 75, 0.9]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "sampler", [LogitNormal(mean=1.0, std=0.6), Mode(), Uniform(low=0.3, high=0.6)], ids=lambda sampler: sampler.kind
)
def test_a_mixture_of_one_is_that_one(sampler: TimestepSampler) -> None:
    mixture = Mixture(samplers=(sampler,), weights=(2,))

    torch.testing.assert_close(mixture.place(SHARES, tokens=1), sampler.place(SHARES, tokens=1))


def test_limits_far_in_every_tail_are_met() -> None:
    mixture = Mixture(samplers=(LogitNormal(mean=-4, std=0.3), LogitNormal(mean=-5, std=0.3)), weights=(1, 1))

    sigma = mixture.replace(low=0.97, high=0.99, preserve_shape=True).sample(50, tokens=1, generator=generator())

    assert 0.97 <= sigma.min() < sigma.max() <= 0.99
    assert len(sigma.unique()) > 40


@given(weights=st.lists(st.floats(0.01, 100), min_size=3, max_size=3), strata=st.none() | st.integers(2, 9))
def test_a_mixture_survives_toml_and_json(weights: list[float], strata: int | None) -> None:
    mixture = HYBRID.replace(weights=tuple(weights), strata=strata, low=0.1)

    assert TimestepSampler.from_toml(mixture.to_toml()) == mixture
    assert TimestepSampler.from_json(mixture.to_json()) == mixture


def test_what_does_not_fit_together_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Mixture(samplers=(Uniform(), Uniform(strata=4)), weights=(1.0,), low=0.5, high=0.4)

    assert [issue.path for issue in caught.value.issues] == ["low", "weights", "samplers[1].strata"]


def test_a_mixture_of_nothing_and_a_weight_of_0_are_refused() -> None:
    with pytest.raises(ConfigError, match="samplers: must be one sampler at least"):
        Mixture(samplers=(), weights=())
    with pytest.raises(ConfigError, match=r"weights: \[1\] must be a number above 0"):
        Mixture(samplers=(Uniform(), Mode()), weights=(1.0, 0.0))
