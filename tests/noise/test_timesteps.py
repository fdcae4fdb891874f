from __future__ import annotations

import math
from typing import ClassVar

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.core.errors import ConfigError
from musubi.noise.mixture import Mixture
from musubi.noise.timesteps import LogitNormal, Mode, ResolutionShift, Shift, Sigmoid, TimestepSampler, Uniform

ALL = (
    Uniform(),
    Uniform(shift=3.0),
    Sigmoid(scale=1.5),
    Shift(shift=5.0),
    LogitNormal(mean=-0.5, std=0.8),
    ResolutionShift(tokens=(16, 256), mu=(-1.0, 1.0), scale=1.2),
    Mode(scale=1.29),
    Mode(scale=-0.8, shift=2.0),
    Mixture(samplers=(Shift(shift=3.0), LogitNormal(mean=-2.68, std=0.5)), weights=(3, 1)),
)


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


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: sampler.kind)
def test_keeping_the_shape_draws_what_rejection_would_keep(sampler: TimestepSampler) -> None:
    limited = sampler.replace(low=0.3, high=0.8, preserve_shape=True).sample(40_000, tokens=64, generator=generator())

    free = sampler.sample(200_000, tokens=64, generator=generator(1))
    kept = free[(free >= 0.3) & (free <= 0.8)]
    shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    torch.testing.assert_close(limited.quantile(shares), kept.quantile(shares), atol=0.006, rtol=0)


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: sampler.kind)
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


@pytest.mark.parametrize("preserve_shape", [False, True])
@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: sampler.kind)
def test_the_share_of_a_noise_level_is_where_it_was_placed(sampler: TimestepSampler, preserve_shape: bool) -> None:
    limited, u = sampler.replace(low=0.1, high=0.7, preserve_shape=preserve_shape), torch.linspace(0.01, 0.99, 21)

    shares = limited.share(limited.place(u, tokens=64), tokens=64)

    torch.testing.assert_close(shares, u.double(), atol=1e-5, rtol=0)


@given(sampler=samplers(), cut=st.floats(0.05, 0.95))
def test_the_shares_below_and_above_a_level_are_the_whole(sampler: TimestepSampler, cut: float) -> None:
    below = sampler.share(torch.tensor(cut), tokens=64)
    above = sampler.share(torch.tensor(1.0), tokens=64, above=torch.tensor(cut).item())

    assert (below + above).item() == pytest.approx(1.0, abs=1e-9)


@attrs.frozen(kw_only=True)
class Ramp(TimestepSampler):
    """The share of draws below s is (s + s^2) / 2."""

    kind: ClassVar[str] = "ramp"

    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        return (0.25 + 2 * u).sqrt() - 0.5


@pytest.mark.parametrize("preserve_shape", [False, True])
def test_a_samplers_quantile_alone_is_enough(preserve_shape: bool) -> None:
    ramp = Ramp(low=0.2, high=0.6, preserve_shape=preserve_shape)

    sigma = ramp.place(torch.tensor([0.0, 0.5, 1.0]), tokens=1)

    # shares are (s + s^2) / 2: 0.12 below 0.2, 0.48 below 0.6
    middle = (0.25 + 2 * 0.3) ** 0.5 - 0.5 if preserve_shape else 0.2 + 0.4 * (1.25**0.5 - 0.5)
    torch.testing.assert_close(sigma, torch.tensor([0.2, middle, 0.6]))


def test_limits_that_leave_nothing_of_a_distribution_are_refused_in_words() -> None:
    sampler = LogitNormal(mean=-10, std=0.1, low=0.9, preserve_shape=True)

    with pytest.raises(ConfigError, match=r"preserve_shape: no draw falls between low = 0\.9 and high = 1"):
        sampler.sample(1, tokens=64, generator=generator())


@pytest.mark.parametrize(("size", "median"), [(1024, 0.6525), (4096, 0.7595), (6889, 0.8352), (16384, 0.9620)])
def test_more_tokens_mean_more_noise_without_bounds(size: int, median: float) -> None:
    sampler = ResolutionShift(tokens=(256, 4096), mu=(0.5, 1.15))

    sigma = sampler.place(torch.tensor([0.5]), tokens=size)

    assert sigma.item() == pytest.approx(median, abs=1e-4)


def test_a_resolution_shift_is_a_shift_for_each_number_of_tokens() -> None:
    u = torch.linspace(0.01, 0.99, 9)

    sigma = ResolutionShift(scale=1.3).place(u, tokens=4096)

    torch.testing.assert_close(sigma, Shift(shift=math.exp(1.15), scale=1.3).place(u, tokens=1))


def test_a_line_through_falling_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokens: must be two rising numbers above 0, got \(4096, 256\)"):
        ResolutionShift(tokens=(4096, 256))


@given(scale=st.floats(-1, 1.75), v=st.floats(0, 1))
def test_the_mode_map_is_that_of_the_paper(scale: float, v: float) -> None:
    level = Mode(scale=scale).quantile(torch.tensor(1 - v, dtype=torch.float64), tokens=1)

    assert level.item() == pytest.approx(1 - v - scale * (math.cos(math.pi * v / 2) ** 2 - 1 + v), abs=1e-12)


@pytest.mark.parametrize("scale", [-1.01, 1.76])
def test_a_mode_scale_at_which_the_map_folds_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"scale: must be a number from -1 to 2 / \(pi - 2\) = 1\.7519"):
        Mode(scale=scale)


def test_a_normal_log_snr_is_a_logit_normal_of_minus_half() -> None:
    log_snr = -6 + 2 * torch.randn(20_000, generator=generator()).double()

    sigma = LogitNormal(mean=3.0, std=1.0).sample(20_000, tokens=1, generator=generator(1)).double()

    shares = torch.tensor([0.05, 0.5, 0.95]).double()
    torch.testing.assert_close(sigma.quantile(shares), (-log_snr / 2).sigmoid().quantile(shares), atol=0.02, rtol=0)


@pytest.mark.parametrize("sampler", ALL, ids=lambda sampler: sampler.kind)
def test_stratified_draws_fall_evenly_into_equal_shares(sampler: TimestepSampler) -> None:
    sigma = sampler.replace(strata=8, low=0.2).sample(80, tokens=64, generator=generator())

    shares = sampler.replace(low=0.2).share(sigma, tokens=64)
    assert torch.histc(shares.float(), bins=8, min=0, max=1).tolist() == [10.0] * 8


def test_strata_leave_the_distribution_as_it_is() -> None:
    firsts = [Sigmoid(strata=4).sample(3, tokens=1, generator=generator(seed))[0] for seed in range(2_000)]

    free = Sigmoid().place(torch.tensor([0.1, 0.5, 0.9]), tokens=1)
    torch.testing.assert_close(torch.stack(firsts).quantile(torch.tensor([0.1, 0.5, 0.9])), free, atol=0.03, rtol=0)


def test_one_stratum_is_refused() -> None:
    with pytest.raises(ConfigError, match="strata: must be a whole number of at least 2, got 1"):
        Uniform(strata=1)


def test_limits_in_the_wrong_order_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"low: must be below high, got 0\.8 and 0\.2"):
        Uniform(low=0.8, high=0.2)


def test_limits_outside_0_to_1_and_a_bad_scale_are_all_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        Sigmoid(low=-1, high=1000, scale=0)

    assert [issue.path for issue in caught.value.issues] == ["low", "high", "scale"]
