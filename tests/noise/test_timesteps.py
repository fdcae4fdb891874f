from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.noise.timesteps import LogitNormal, Shift, Sigmoid, TimestepSampler, Uniform

ALL = (Uniform(), Sigmoid(scale=1.5), Shift(shift=5.0), LogitNormal(mean=-0.5, std=0.8))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def samplers(draw: st.DrawFn) -> TimestepSampler:
    low = draw(st.floats(0, 0.9))
    return draw(st.sampled_from(ALL)).replace(
        low=low, high=draw(st.floats(low + 0.05, 1)), preserve_shape=draw(st.booleans())
    )


@given(sampler=samplers())
def test_noise_levels_are_float32_inside_the_limits_and_never_0_or_1(sampler: TimestepSampler) -> None:
    sigma = sampler.sample(256, tokens=64, generator=generator())

    assert (sigma.dtype, sigma.shape) == (torch.float32, (256,))
    assert sigma.min() >= sampler.low - 1e-7
    assert sigma.max() <= sampler.high + 1e-7
    assert sigma.min() > 0
    assert sigma.max() < 1


@given(sampler=samplers())
def test_a_timestep_sampler_survives_toml(sampler: TimestepSampler) -> None:
    assert TimestepSampler.from_toml(sampler.to_toml()) == sampler


@given(sampler=st.sampled_from(ALL), u=st.floats(0.001, 0.999))
def test_without_limits_the_part_inside_is_the_whole(sampler: TimestepSampler, u: float) -> None:
    share = torch.tensor([u], dtype=torch.float64)

    torch.testing.assert_close(sampler.inside(share, tokens=64), sampler.quantile(share, tokens=64))


@given(sampler=samplers())
def test_larger_shares_lie_at_higher_noise(sampler: TimestepSampler) -> None:
    sigma = sampler.place(torch.linspace(0.01, 0.99, 50), tokens=64)

    assert (sigma.diff() >= 0).all()
    assert sigma[-1] > sigma[0]


@pytest.mark.parametrize("sampler", ALL, ids=lambda s: s.kind)
def test_keeping_the_shape_draws_what_rejection_would_keep(sampler: TimestepSampler) -> None:
    limited = sampler.replace(low=0.3, high=0.8, preserve_shape=True).sample(40_000, tokens=64, generator=generator())

    free = sampler.sample(200_000, tokens=64, generator=generator(1))
    kept = free[(free >= 0.3) & (free <= 0.8)]
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(limited.quantile(shares), kept.quantile(shares), atol=0.006, rtol=0)


@pytest.mark.parametrize("sampler", ALL, ids=lambda s: s.kind)
def test_squeezing_maps_every_draw_into_the_limits(sampler: TimestepSampler) -> None:
    squeezed = sampler.replace(low=0.2, high=0.6).sample(100, tokens=64, generator=generator())

    free = sampler.sample(100, tokens=64, generator=generator())
    torch.testing.assert_close(squeezed, 0.2 + 0.4 * free)


@pytest.mark.parametrize(("mean", "low", "high"), [(-4, 0.97, 0.99), (4, 0.01, 0.03)])
def test_limits_far_in_a_tail_are_met_without_trying_for_ever(mean: float, low: float, high: float) -> None:
    sampler = LogitNormal(mean=mean, std=0.3, low=low, high=high, preserve_shape=True)

    sigma = sampler.sample(100, tokens=64, generator=generator())

    assert low <= sigma.min() < sigma.max() <= high
    assert len(sigma.unique()) > 90


def test_equal_generators_draw_equal_noise_levels_and_advance() -> None:
    one, other = generator(3), generator(3)

    first = Sigmoid().sample(5, tokens=1, generator=one)

    assert torch.equal(first, Sigmoid().sample(5, tokens=1, generator=other))
    assert not torch.equal(first, Sigmoid().sample(5, tokens=1, generator=one))


def test_shift_is_the_shifted_sigmoid() -> None:
    plain = Sigmoid(scale=0.7).sample(50, tokens=1, generator=generator()).double()

    moved = Shift(shift=3.0, scale=0.7).sample(50, tokens=1, generator=generator())

    torch.testing.assert_close(moved, (3 * plain / (1 + 2 * plain)).float())


def test_limits_in_the_wrong_order_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"low: must be below high, got 0\.8 and 0\.2"):
        Uniform(low=0.8, high=0.2)


def test_limits_outside_0_to_1_and_a_bad_scale_are_all_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        Sigmoid(low=-1, high=1000, scale=0)

    assert [issue.path for issue in caught.value.issues] == ["low", "high", "scale"]
