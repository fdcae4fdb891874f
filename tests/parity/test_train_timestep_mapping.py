from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from musubi.noise.mixture import Mixture
from musubi.noise.timesteps import Bell, TimestepSampler
from tests.parity.cases import vector_cases
from tests.parity.timesteps import Meant, meaning, shares_of


@pytest.mark.parametrize("case", vector_cases("train_timestep_mapping"), ids=lambda case: case["id"])
def test_train_timestep_mapping(case: dict[str, Any]) -> None:
    meant = meaning(case)

    sigma = _levels(case, meant)

    if meant.indexed:
        _assert_in_the_places(sigma, case["timestep"])
    else:
        _assert_a_thousandth_less(sigma, case)


def _levels(case: dict[str, Any], meant: Meant) -> Tensor:
    """Return our noise levels, float32, for the reference's draws."""
    if "decision" in case:
        return torch.stack([_of_uniform(meant, part, [case["u"]])[0] for part in _decided(case, meant.sampler)])
    if "z" in case:
        z = torch.tensor(case["z"], dtype=torch.float64)
        return _placed(meant, meant.sampler, torch.special.ndtr(-z if meant.mirrored else z))
    return _of_uniform(meant, meant.sampler, case["u"])


def _decided(case: dict[str, Any], sampler: TimestepSampler) -> list[TimestepSampler]:
    """Return the part of a mixture that each decision falls on, with the limits of the whole."""
    assert isinstance(sampler, Mixture)
    limits: dict[str, Any] = {name: getattr(sampler, name) for name in ("low", "high", "preserve_shape")}
    edges = shares_of(case["args"]["timestep_sampling"].removeprefix("qinglong_"), case["versions"])
    assert np.cumsum(sampler.parts)[:-1] == pytest.approx(edges)
    places = [sum(bool(np.float32(d) >= np.float32(edge)) for edge in edges) for d in case["decision"]]
    return [sampler.samplers[place].replace(**limits) for place in places]


def _of_uniform(meant: Meant, sampler: TimestepSampler, values: list[float]) -> Tensor:
    u = torch.tensor(values, dtype=torch.float64)
    if isinstance(sampler, Bell):
        u = u.clamp(1e-7, 1 - 1e-7)  # where the reference cuts before its inverse error function
    # log(SNR) falls where the noise level rises, in a hybrid too
    mirrored = meant.mirrored or (isinstance(meant.sampler, Mixture) and sampler.kind == "logit_normal")
    return _placed(meant, sampler, 1 - u if mirrored else u)


def _placed(meant: Meant, sampler: TimestepSampler, shares: Tensor) -> Tensor:
    return sampler.place(shares, tokens=meant.tokens)


def _assert_a_thousandth_less(sigma: Tensor, case: dict[str, Any]) -> None:
    """Compare at T - 1 (decision 5): the reference tells its networks a thousandth more noise than there is."""
    wanted = torch.tensor(case["timestep"], dtype=torch.float64)
    drawn = case["u"] if isinstance(case.get("u"), list) else []
    at_an_end = torch.tensor([not 1e-4 < u < 1 - 1e-4 for u in drawn] or [False] * len(wanted))
    tolerance = torch.where(at_an_end, 3e-2, 2e-5) * wanted + 1e-4
    assert ((1000 * sigma.double() - (wanted - 1)).abs() <= tolerance).all()


def _assert_in_the_places(sigma: Tensor, timesteps: list[float]) -> None:
    """Compare levels with places in the reference's falling list: it rounds down, and a tie may fall either way."""
    places = 1000 - torch.tensor(timesteps, dtype=torch.float64).round()
    exact = 1000 * sigma.double()
    assert ((exact - 1e-3).floor() <= places).all()
    assert ((exact + 1e-3).floor() >= places).all()
