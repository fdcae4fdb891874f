from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi import FluxKontext, QwenImage
from musubi.architecture import Architecture
from musubi.core.errors import MusubiError
from musubi.inference.engine import Start, sample_latents
from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.guidance import ClassifierFree
from musubi.noise.samplers import Euler, Sampler, UniPC
from tests.parity.cases import vector_cases
from tests.parity.stub import Counters, Stub

SAMPLERS: dict[str, type[Sampler]] = {
    "wan_unipc": UniPC,
    "wan_dpm++": DPMPlusPlus,
    "wan_vanilla": Euler,
    "hv_discrete": Euler,
}
LATER = {
    "framepack": "FramePack's schedule arrives with FramePack",
}
OWN: dict[str, Architecture] = {"qwen": QwenImage.text_to_image(), "kontext": FluxKontext.dev()}
"""Models whose grid depends on the size, unless a shift is asked for."""


TOLERANCE = 2e-3
CASES = vector_cases("infer_schedule")


def times(case: dict[str, Any], sigma: float, expected: float) -> tuple[float, ...]:
    """Return which times are right: where DPM++ stands at a whole one, also that one.

    The reference cuts 1000 sigma in float64, so that 0.875 may become 874: how its grid's last bit fell, not a rule.
    """
    whole = round(1000 * sigma)
    return (expected, whole) if case["kind"] == "wan_dpm++" and abs(1000 * sigma - whole) < 1e-4 else (expected,)


def sampler_of(case: dict[str, Any]) -> Sampler:
    params = case["params"]
    if case["kind"] in OWN:
        own = OWN[case["kind"]].sampler_for((params["width"], params["height"]))
        return own if params["flow_shift"] is None else own.replace(shift=float(params["flow_shift"]))
    if case["kind"] not in SAMPLERS:
        pytest.skip(LATER.get(case["kind"], f"{case['kind']} has not been built yet"))
    return SAMPLERS[case["kind"]](shift=float(params["shift"]))


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] != "hv_video2video"], ids=lambda case: case["id"])
def test_infer_schedule(case: dict[str, Any]) -> None:
    sampler = sampler_of(case)

    sigmas = sampler.sigmas(case["params"]["steps"], tokens=1)

    torch.testing.assert_close(sigmas, torch.tensor(case["sigmas"], dtype=torch.float32), atol=2e-6, rtol=0)
    levels = sigmas.tolist()[:-1]
    for sigma, expected in zip(levels, case.get("timesteps", [1000 * level for level in levels]), strict=True):
        told, right = 1000 * sampler.told(sigma), times(case, sigma, expected)
        assert any(told == pytest.approx(time, abs=TOLERANCE) for time in right), (told, right)


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "hv_video2video"], ids=lambda case: case["id"])
def test_infer_schedule_of_a_clip_that_is_changed(case: dict[str, Any]) -> None:
    params = case["params"]
    stub = Stub(lambda x, *_: torch.zeros_like(x))

    def sampled() -> Tensor:
        return sample_latents(
            stub,
            Counters(1),
            torch.ones(1, 2),
            positive="positive",
            negative=None,
            sampler=Euler(shift=float(params["shift"])),
            guidance=ClassifierFree(scale=1.0),
            steps=params["steps"],
            tokens=1,
            device=torch.device("cpu"),
            dtype=torch.float32,
            start=Start(latents=torch.zeros(1, 2), strength=params["strength"]),
        )

    if int(params["steps"] * params["strength"]) == 0:  # the reference takes all steps then, and forgets the clip
        with pytest.raises(MusubiError, match=r"none of .* steps is left"):
            sampled()
        return
    begun = sampled()

    assert begun.flatten().tolist() == pytest.approx([case["noise_fraction"]] * 2, abs=2e-6)
    assert [time for _, time, _, _ in stub.asked] == pytest.approx(case["timesteps"], abs=2e-3)
