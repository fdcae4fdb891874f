from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi.noise.samplers import Euler, Sampler, UniPC
from tests.parity.cases import vector_cases

SAMPLERS: dict[str, type[Sampler]] = {"wan_unipc": UniPC, "wan_vanilla": Euler, "hv_discrete": Euler}
LATER = {
    "wan_dpm++": "DPM++ arrives with issue 6 (Wan complete)",
    "qwen": "Qwen's schedule arrives with issue 7 (Qwen-Image and Kontext)",
    "kontext": "Kontext's schedule arrives with issue 7 (Qwen-Image and Kontext)",
    "framepack": "FramePack's schedule arrives with FramePack",
    "hv_video2video": "video to video arrives with HunyuanVideo",
}


@pytest.mark.parametrize("case", vector_cases("infer_schedule"), ids=lambda case: case["id"])
def test_infer_schedule(case: dict[str, Any]) -> None:
    if case["kind"] not in SAMPLERS:
        pytest.skip(LATER.get(case["kind"], f"{case['kind']} has not been built yet"))
    sampler = SAMPLERS[case["kind"]](shift=float(case["params"]["shift"]))

    sigmas = sampler.sigmas(case["params"]["steps"], tokens=1)

    torch.testing.assert_close(sigmas, torch.tensor(case["sigmas"], dtype=torch.float32), atol=2e-6, rtol=0)
    times = [1000 * sampler.told(sigma) for sigma in sigmas.tolist()[:-1]]
    assert times == pytest.approx(case["timesteps"], abs=1e-9 if case["kind"] == "wan_unipc" else 2e-3)
