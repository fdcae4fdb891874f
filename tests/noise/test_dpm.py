from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from musubi.noise.dpm import DPMPlusPlus


def wavy(x: Tensor, sigma: Tensor) -> Tensor:
    return 0.7 * torch.sin(3 * x + 2 * sigma) + 0.3 * x * (1 - sigma)


@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 20, 50])
def test_it_walks_as_diffusers_does_on_the_same_grid(shift: float, steps: int) -> None:
    sampler = DPMPlusPlus(shift=shift)
    sigmas = sampler.sigmas(steps, tokens=64)
    theirs: Any = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    theirs.set_timesteps(steps)
    theirs.sigmas, theirs.timesteps = sigmas, (1000 * sigmas[:-1]).long()
    theirs.set_begin_index(0)
    x = torch.randn((2, 4, 3), generator=torch.Generator().manual_seed(0))
    expected, levels = x, iter(sigmas)

    for i, time in enumerate(theirs.timesteps):
        expected = theirs.step(wavy(expected, sigmas[i]), time, expected, return_dict=False)[0]

    found = sampler.sample(lambda x, _: wavy(x, next(levels)), x, sigmas)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_model_is_told_whole_thousandths_from_1000_on() -> None:
    sampler = DPMPlusPlus(shift=5.0)

    told = [1000 * sampler.told(sigma) for sigma in sampler.sigmas(4, tokens=1).tolist()[:-1]]

    assert told == pytest.approx([1000, 937, 833, 625])
