from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.samplers import Euler, Sampler, UniPC, Velocity

ALL = (Euler(shift=3.0), UniPC(shift=5.0), UniPC(shift=2.0, order=1), DPMPlusPlus(shift=5.0))


def start(batch: int = 2) -> Tensor:
    return torch.randn((batch, 4, 3), generator=torch.Generator().manual_seed(0))


def wavy(x: Tensor, sigma: Tensor) -> Tensor:
    level = sigma.reshape(-1, 1, 1)
    return 0.7 * torch.sin(3 * x + 2 * level) + 0.3 * x * (1 - level)


def towards(clean: Tensor) -> Velocity:
    """Velocity of a model that knows the data: the path is straight, but for the cut of what it is told."""
    return lambda x, sigma: (x - clean) / sigma.reshape(-1, 1, 1)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@given(steps=st.integers(1, 60))
def test_noise_levels_fall_from_the_start_to_exactly_0(sampler: Sampler, steps: int) -> None:
    sigmas = sampler.sigmas(steps, tokens=64)

    assert (sigmas.dtype, len(sigmas), sigmas[-1].item()) == (torch.float32, steps + 1, 0.0)
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] <= 1


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_a_model_that_knows_the_data_is_led_to_it(sampler: Sampler, steps: int) -> None:
    clean, sigmas = torch.linspace(-1, 1, 12).reshape(1, 4, 3).repeat(2, 1, 1), sampler.sigmas(steps, tokens=64)
    exact = iter(sigmas)

    def velocity(x: Tensor, told: Tensor) -> Tensor:
        return towards(clean)(x, next(exact).expand(2))

    torch.testing.assert_close(sampler.sample(velocity, start(), sigmas), clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_every_step_asks_the_model_once_and_is_reported(sampler: Sampler) -> None:
    asked: list[Tensor] = []
    heard: list[int] = []

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(sigma)
        return wavy(x, sigma)

    sampler.sample(velocity, start(), sampler.sigmas(6, tokens=64), lambda done, _: heard.append(done))

    assert heard == [1, 2, 3, 4, 5, 6]
    assert [(s.shape, s.dtype) for s in asked] == [((2,), torch.float32)] * 6


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_items_of_a_batch_do_not_touch_each_other(sampler: Sampler) -> None:
    sigmas = sampler.sigmas(5, tokens=64)

    together = sampler.sample(wavy, start(), sigmas)

    for i in range(2):
        assert torch.equal(together[i : i + 1], sampler.sample(wavy, start()[i : i + 1], sigmas))


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_the_state_stays_float32_when_the_model_answers_in_bfloat16(sampler: Sampler) -> None:
    seen: list[torch.dtype] = []

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x.dtype)
        return wavy(x, sigma).bfloat16()

    result = sampler.sample(velocity, start().bfloat16(), sampler.sigmas(3, tokens=64))

    assert {result.dtype, *seen} == {torch.float32}


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 20, 50])
def test_unipc_walks_as_diffusers_does(shift: float, steps: int) -> None:
    theirs: Any = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps, sigmas=np.linspace(np.float32(0.999), 0, steps + 1)[:-1])
    expected, ours = start(), UniPC(shift=shift)

    for time in theirs.timesteps:
        sigma = (time.float() / 1000).expand(2)
        expected = theirs.step(wavy(expected, sigma), time, expected, return_dict=False)[0]

    sigmas = ours.sigmas(steps, tokens=64)
    torch.testing.assert_close(sigmas, theirs.sigmas, atol=1e-6, rtol=0)
    assert [round(1000 * ours.told(s)) for s in sigmas.tolist()[:-1]] == theirs.timesteps.tolist()
    torch.testing.assert_close(ours.sample(wavy, start(), sigmas), expected, atol=1e-5, rtol=0)


def test_many_steps_at_a_large_shift_finish_although_the_told_levels_repeat() -> None:
    sampler = UniPC(shift=17.0)
    sigmas = sampler.sigmas(100, tokens=64)

    result = sampler.sample(wavy, start(), sigmas)

    assert sampler.told(sigmas[0].item()) == sampler.told(sigmas[1].item())
    assert result.isfinite().all()


@pytest.mark.parametrize("better", [UniPC(), DPMPlusPlus()], ids=repr)
def test_two_estimates_are_nearer_to_the_limit_than_euler_at_equal_cost(better: Sampler) -> None:
    def exact(sampler: Sampler, steps: int) -> Tensor:
        levels = sampler.sigmas(steps, tokens=64)
        true = iter(levels)
        return sampler.sample(lambda x, _: wavy(x, next(true).expand(2)), 0.2 * start(), levels)

    limit = exact(Euler(), 4000)

    error, euler = ((exact(sampler, 20) - limit).abs().mean() for sampler in (better, Euler()))
    assert error < euler / 2


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_a_sampler_survives_toml(sampler: Sampler) -> None:
    assert Sampler.from_toml(sampler.to_toml()) == sampler
