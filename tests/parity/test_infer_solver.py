from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi import QwenImage
from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.samplers import Euler, Sampler, UniPC
from tests.parity.cases import vector_cases

SAMPLERS: dict[str, type[Sampler]] = {"wan_unipc": UniPC, "wan_dpm++": DPMPlusPlus, "wan_vanilla": Euler}
LATER = {
    "framepack_unipc_bh1": "FramePack's solver arrives with FramePack",
}


def qwen_euler(params: dict[str, Any]) -> Sampler:
    """Return Qwen-Image's sampler for as many tokens as a case has, or with a case's own shift."""
    model = QwenImage.text_to_image()
    mu, _ = model.timesteps.logit(params["seq_len"])
    return model.sampler.replace(shift=float(params["flow_shift"] or math.exp(mu)))


def of_shift(case: dict[str, Any]) -> Sampler:
    return SAMPLERS[case["kind"]](shift=float(case["params"]["shift"]))


@pytest.mark.parametrize("case", vector_cases("infer_solver"), ids=lambda case: case["id"])
def test_infer_solver(case: dict[str, Any]) -> None:
    if case["kind"] not in SAMPLERS and case["kind"] != "qwen_euler":
        pytest.skip(LATER.get(case["kind"], f"{case['kind']} has not been built yet"))
    sampler = qwen_euler(case["params"]) if case["kind"] == "qwen_euler" else of_shift(case)
    sigmas = sampler.sigmas(case["params"]["steps"], tokens=1)
    exact, states = iter(sigmas), list[Tensor]()

    def velocity(x: Tensor, _: Tensor) -> Tensor:
        sigma = next(exact)
        predicted: Tensor = 0.7 * (3 * x + 2 * sigma).sin() + 0.3 * x * (1 - sigma)
        return predicted

    sampler.sample(velocity, torch.tensor(case["x_init"])[None], sigmas, lambda _, x: states.append(x[0]))

    found = torch.stack([states[index] for index in case["state_index"]])
    torch.testing.assert_close(found, torch.tensor(case["states"]), atol=1e-5, rtol=0)
