from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi.noise.weighting import CosMap, NoWeighting, SigmaSqrt, Weighting
from tests.parity.cases import vector_cases

WEIGHTINGS: dict[str, Weighting] = {"none": NoWeighting(), "sigma_sqrt": SigmaSqrt(), "cosmap": CosMap()}
BFLOAT16 = 0.03
"""What rounding the noise level and three intermediate values to eight bits can do to a weight."""


@pytest.mark.parametrize("case", vector_cases("train_loss_weighting"), ids=lambda case: case["id"])
def test_train_loss_weighting(case: dict[str, Any]) -> None:
    # logit_normal and mode are ways to draw noise levels; as weightings the reference gives every level 1
    weighting = WEIGHTINGS.get(case["weighting_scheme"], NoWeighting())
    exact = case["sigma_dtype"] == "float32"

    weight = weighting.weights(torch.tensor([_sigma(case)], dtype=torch.float32)).item()

    # the reference's bfloat16 sigma is a defect: here sigma stays float32, and the weight is the exact one nearby
    assert weight == pytest.approx(1.0 if case["weight"] is None else case["weight"], rel=1e-5 if exact else BFLOAT16)


@pytest.mark.parametrize(
    "case",
    [case for case in vector_cases("train_loss_weighting") if case["timestep"] % 1 and case["weight"] is not None],
    ids=lambda case: case["id"],
)
def test_between_the_references_timesteps_weights_are_between_its_own(case: dict[str, Any]) -> None:
    weighting, timestep = WEIGHTINGS[case["weighting_scheme"]], case["timestep"]
    neighbours = torch.tensor([max(1.0, timestep // 1), timestep // 1 + 1]) / 1000

    weight = weighting.weights(torch.tensor([timestep / 1000])).item()

    low, high = sorted(weighting.weights(neighbours).tolist())
    assert low <= weight <= high


def _sigma(case: dict[str, Any]) -> float:
    """Return the entry of the reference's schedule nearest to the case's timestep, before it is rounded."""
    away = {entry: abs(case["timestep"] - entry) for entry in range(1, 1001)}
    nearest = [entry / 1000 for entry, distance in away.items() if distance <= min(away.values()) + 1e-3]
    found = min(nearest, key=lambda sigma: abs(sigma - case["sigma"]))
    assert found == pytest.approx(case["sigma"], rel=2**-8)
    return found
