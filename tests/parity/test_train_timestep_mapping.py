from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.noise.timesteps import Bell, TimestepSampler
from tests.parity.cases import vector_cases
from tests.parity.timesteps import MIRRORED, sampler_of


@pytest.mark.parametrize("case", vector_cases("train_timestep_mapping"), ids=lambda case: case["id"])
def test_train_timestep_mapping(case: dict[str, Any]) -> None:
    sampler = sampler_of(case)
    mirrored = case["args"]["timestep_sampling"] == MIRRORED

    sigma = _of_normal(sampler, case["z"], mirrored) if "z" in case else _of_uniform(sampler, case["u"], mirrored)

    wanted = torch.tensor(case["timestep"])  # 1000 sigma + 1: the reference tells its networks a thousandth too much
    at_an_end = torch.tensor([not 1e-4 < u < 1 - 1e-4 for u in case.get("u", [])] or [False] * len(wanted))
    tolerance = torch.where(at_an_end, 3e-2, 2e-5) * wanted
    assert ((1000 * sigma + 1 - wanted).abs() <= tolerance + 1e-4).all()


def _of_uniform(sampler: TimestepSampler, values: list[float], mirrored: bool) -> Tensor:
    u = torch.tensor(values, dtype=torch.float64)
    if isinstance(sampler, Bell):
        u = u.clamp(1e-7, 1 - 1e-7)  # where the reference cuts before its inverse error function
    return sampler.place(1 - u if mirrored else u, tokens=4096)


def _of_normal(sampler: TimestepSampler, values: list[float], mirrored: bool) -> Tensor:
    z = torch.tensor(values, dtype=torch.float64)
    return sampler.place(torch.special.ndtr(-z if mirrored else z), tokens=4096)
