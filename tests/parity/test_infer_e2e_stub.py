from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.inference.engine import draw_noise, sample_latents
from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.guidance import ClassifierFree
from musubi.noise.samplers import Euler, Sampler, UniPC
from tests.parity.cases import vector_cases
from tests.parity.stub import Counters, Stub

SAMPLERS: dict[str, type[Sampler]] = {"unipc": UniPC, "dpm++": DPMPlusPlus, "vanilla": Euler}
LATER = {
    "qwen_image": "Qwen-Image's generations arrive with issue 7",
    "kontext": "FLUX.1 Kontext's generations arrive with issue 7",
    "framepack": "FramePack's generations arrive with FramePack",
    "hunyuan_video": "HunyuanVideo's generations arrive with HunyuanVideo",
}


def answer(x: Tensor, time: float, prompt: str, _: bool) -> Tensor:
    return 0.5 * x + 0.1 * math.sin(time / 100) + (0.2 if prompt == "positive" else -0.1) * x.cos()


@pytest.mark.parametrize("case", vector_cases("infer_e2e_stub"), ids=lambda case: case["id"])
def test_infer_e2e_stub(case: dict[str, Any]) -> None:
    if case["arch"] in LATER:
        pytest.skip(LATER[case["arch"]])
    params = case["params"]
    guidance = ClassifierFree(scale=params["guidance"])
    stub = Stub(answer)

    latents = sample_latents(
        stub,
        Counters(1),
        draw_noise(case["latent_shape"], [params["seed"]]),
        positive="positive",
        negative="negative",
        sampler=SAMPLERS[params["solver"]](shift=float(params["flow_shift"])),
        guidance=guidance,
        steps=params["steps"],
        tokens=1,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )[0].double()

    asked = [(time, prompt) for time, prompt in case["calls"] if prompt == "pos" or guidance.uses_negative]
    assert [prompt[:3] for _, _, prompt, _ in stub.asked] == [prompt for _, prompt in asked]
    assert [time for _, time, _, _ in stub.asked] == pytest.approx([time for time, _ in asked], abs=2e-3)
    assert list(latents.shape) == case["latent_shape"]
    assert latents.flatten()[case["probe_index"]].tolist() == pytest.approx(case["probe"], abs=1e-4)
    assert (latents.mean().item(), latents.std().item()) == pytest.approx((case["mean"], case["std"]), abs=1e-4)
