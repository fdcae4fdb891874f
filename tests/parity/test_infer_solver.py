from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.samplers import Euler, Sampler, UniPC
from tests.parity.cases import vector_cases

SAMPLERS: dict[str, type[Sampler]] = {"wan_unipc": UniPC, "wan_dpm++": DPMPlusPlus, "wan_vanilla": Euler}
LATER = {
    "qwen_euler": "Qwen's stretched schedule arrives with issue 7 (Qwen-Image)",
    "framepack_unipc_bh1": "FramePack's solver arrives with FramePack",
}


@pytest.mark.parametrize("case", vector_cases("infer_solver"), ids=lambda case: case["id"])
def test_infer_solver(case: dict[str, Any]) -> None:
    if case["kind"] not in SAMPLERS:
        pytest.skip(LATER.get(case["kind"], f"{case['kind']} has not been built yet"))
    sampler = SAMPLERS[case["kind"]](shift=float(case["params"]["shift"]))
    sigmas = sampler.sigmas(case["params"]["steps"], tokens=1)
    exact, states = iter(sigmas), list[Tensor]()

    def velocity(x: Tensor, _: Tensor) -> Tensor:
        sigma = next(exact)
        predicted: Tensor = 0.7 * (3 * x + 2 * sigma).sin() + 0.3 * x * (1 - sigma)
        return predicted

    sampler.sample(velocity, torch.tensor(case["x_init"])[None], sigmas, lambda _, x: states.append(x[0]))

    found = torch.stack([states[index] for index in case["state_index"]])
    torch.testing.assert_close(found, torch.tensor(case["states"]), atol=1e-5, rtol=0)
