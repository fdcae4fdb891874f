from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from musubi.architecture import Expert
from musubi.core.errors import ConfigError
from musubi.inference.engine import Loaded, sample_latents
from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.guidance import ClassifierFree, Guidance
from musubi.noise.per_expert import PerExpert
from musubi.noise.samplers import Euler, OnStep, Sampler, UniPC, Velocity
from musubi.noise.skip_layer import SkipLayer
from tests.parity.cases import vector_cases
from tests.parity.stub import Counters, Network, Stub

SAMPLERS: dict[str, type[Sampler]] = {"unipc": UniPC, "dpm++": DPMPlusPlus, "vanilla": Euler}


@attrs.frozen(kw_only=True)
class Noting(Sampler):
    """Another sampler, which notes what the engine answers."""

    inner: Sampler
    heard: list[float] = attrs.field(factory=list)

    def sigmas(self, steps: int, *, tokens: int) -> Tensor:
        return self.inner.sigmas(steps, tokens=tokens)

    def told(self, sigma: float) -> float:
        return self.inner.told(sigma)

    def sample(self, velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        def noting(x: Tensor, sigma: Tensor) -> Tensor:
            answer = velocity(x, sigma)
            self.heard.append(answer.flatten()[0].item())
            return answer

        return self.inner.sample(noting, x, sigmas, on_step)


def rule(params: dict[str, Any], scale: float) -> Guidance:
    mode, ratio = params.get("cfg_skip_mode", "none"), params.get("cfg_apply_ratio")
    base = ClassifierFree(scale=scale)
    if mode not in (None, "none") and ratio is not None:
        base = ClassifierFree(scale=scale, skip=mode, ratio=ratio)
    if params.get("slg_mode") is None or (params["slg_layers"] is None and params["slg_mode"] == "uncond"):
        return base
    return SkipLayer(
        blocks=tuple(params["slg_layers"] or ()),
        mode=params["slg_mode"],
        scale=params.get("slg_scale", 3.0),
        start=params.get("slg_start", 0.0),
        end=params.get("slg_end", 0.3),
        base=base,
    )


def answer(x: Tensor, _: float, prompt: str, lacking: bool) -> Tensor:
    return torch.full_like(x, 100.0 if lacking else 1.0 if prompt == "positive" else 10.0)


def letters(params: dict[str, Any], recorded: str) -> str:
    """Return the reference's calls of a step but those that do nothing: at a scale of 1 it asks all the same.

    The third pass of "original" is under the negative prompt there and under the prompt here, as in diffusers; the
    recorded stub answers both alike.
    """
    expert, calls = recorded.split(":")
    high = params.get("boundary") is not None and expert == "H"
    if params.get("gh" if high else "g", 5.0) != 1:
        return recorded
    return f"{expert}:{calls.replace('U', '').replace('S', 'S' if params.get('slg_mode') == 'original' else '')}"


@pytest.mark.parametrize("case", vector_cases("infer_guidance_trace"), ids=lambda case: case["id"])
def test_infer_guidance_trace(case: dict[str, Any]) -> None:
    params = case["params"]
    low, high, boundary = params.get("g", 5.0), params.get("gh", 5.0), params.get("boundary")
    if params.get("slg_mode") == "original" and params.get("slg_layers") is None:
        with pytest.raises(ConfigError, match="blocks: names none"):  # the reference adds slg_scale to the guidance
            rule(params, low)
        return
    guidance = rule(params, low) if boundary is None else PerExpert(high=rule(params, high), low=rule(params, low))
    experts = (
        (Expert(),) if boundary is None else (Expert(name="high", low=boundary), Expert(name="low", high=boundary))
    )
    networks = {expert.name: Network(Counters()) for expert in experts}
    sampler = Noting(inner=SAMPLERS[params.get("solver", "unipc")](shift=float(params["shift"])))
    stub, steps, asked = Stub(answer), list[int](), 0

    def chosen(sigma: float) -> Loaded:
        return networks[next(expert.name for expert in experts if expert.covers(sigma))]

    sample_latents(
        stub,
        chosen,
        torch.zeros(1, 1, 1, 2, 2),
        positive="positive",
        negative="negative",
        sampler=sampler,
        guidance=guidance,
        steps=params["steps"],
        tokens=1,
        device=torch.device("cpu"),
        dtype=torch.float32,
        experts=experts,
        blocks=("blocks",),
        on_step=lambda *_: steps.append(len(stub.asked)),
    )

    found, times = list[str](), list[float]()
    for until in steps:
        questions, asked = stub.asked[asked:until], until
        expert = "H" if params.get("two") and questions[0][0] is networks["high"].model else "L"
        calls = "".join("S" if lacking else prompt for _, _, prompt, lacking in questions)
        found.append(f"{expert}:{calls.replace('positive', 'C').replace('negative', 'U')}")
        times.append(questions[0][1])
    assert found == [letters(params, calls) for calls in case["calls"]]
    assert times == pytest.approx(case["timesteps"], abs=1e-3)
    assert sampler.heard == pytest.approx(case["combined"], abs=1e-5)
