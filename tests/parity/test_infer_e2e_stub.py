from __future__ import annotations

import ast
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musubi import FluxKontext, NormPreserving, QwenImage
from musubi.architectures.flux_kontext.denoiser import FluxKontextConditions
from musubi.architectures.qwen_image.denoiser import QwenImageConditions
from musubi.embedding.patches import unpatched
from musubi.inference.engine import draw_noise, sample_latents
from musubi.noise.dpm import DPMPlusPlus
from musubi.noise.embedded import Embedded
from musubi.noise.guidance import ClassifierFree
from musubi.noise.samplers import Euler, Sampler, UniPC
from tests.parity.cases import vector_cases
from tests.parity.stub import Counters, Stub

SAMPLERS: dict[str, type[Sampler]] = {"unipc": UniPC, "dpm++": DPMPlusPlus, "vanilla": Euler}
LATER = {
    "framepack": "FramePack's generations arrive with FramePack",
    "hunyuan_video": "HunyuanVideo's generations arrive with HunyuanVideo",
}
IMAGES = ("qwen_image", "kontext")


def answer(x: Tensor, time: float, prompt: str, _: bool) -> Tensor:
    return 0.5 * x + 0.1 * math.sin(time / 100) + (0.2 if prompt == "positive" else -0.1) * x.cos()


def of(*architectures: str) -> list[dict[str, Any]]:
    return [case for case in vector_cases("infer_e2e_stub") if case["arch"] in architectures]


@pytest.mark.parametrize(
    "case", [c for c in vector_cases("infer_e2e_stub") if c["arch"] not in IMAGES], ids=lambda c: c["id"]
)
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


class Tokens(nn.Module):
    """Answer by the formula to tokens, as the transformer of an image model would; note the times and the shapes."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.zeros(1)))
        self.asked: list[tuple[float, list[int]]] = []
        self.shapes: list[tuple[int, int, int]] = []
        self.guidance: set[float] = set()
        self.indices: list[int] = []

    def get_parameter(self, target: str) -> nn.Parameter:
        return next(self.parameters())

    def forward(self, tokens: Tensor, *, encoder_hidden_states: Tensor, timestep: Tensor, **told: Any) -> Tensor:
        time = 1000 * timestep[0].item()
        self.asked.append((time, list(tokens.shape)))
        self.shapes = told.get("img_shapes", [])
        if "guidance" in told:
            self.guidance |= set(told["guidance"].tolist())
            self.indices = told["img_ids"][:, 0].int().unique().tolist()
        return answer(tokens, time, "positive" if encoder_hidden_states.mean() > 0 else "negative", False)


@pytest.mark.parametrize("case", of("qwen_image"), ids=lambda c: c["id"])
def test_infer_e2e_stub_of_qwen_image(case: dict[str, Any]) -> None:
    params, shapes = case["params"], case["params"]["control_latents"] or []
    size = (params["width"], params["height"])
    model = QwenImage.edit_2509() if shapes else QwenImage.text_to_image()
    controls = tuple(torch.full(shape, 0.5 * (number + 1)) for number, shape in enumerate(shapes))
    positive, negative = (
        QwenImageConditions(text=torch.full((1, 3, 4), value), lengths=(3,), controls=controls) for value in (1.0, -1.0)
    )
    network, sampler = Tokens("img_in"), model.sampler_for(size)

    latents = sample_latents(
        model.denoiser(),
        network,
        draw_noise(model.geometry.latent_shape(size), [params["seed"]]),
        positive=positive,
        negative=negative,
        sampler=sampler if params["flow_shift"] is None else sampler.replace(shift=float(params["flow_shift"])),
        guidance=NormPreserving(scale=params["guidance"]),
        steps=params["steps"],
        tokens=1,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )

    check_bfloat16(case, latents, network)
    assert network.shapes == ast.literal_eval(case["img_shapes"])[0] if shapes else ast.literal_eval(case["img_shapes"])


@pytest.mark.parametrize("case", of("kontext"), ids=lambda c: c["id"])
def test_infer_e2e_stub_of_kontext(case: dict[str, Any]) -> None:
    params = case["params"]
    shown, size = params["control_latent_shape"], (params["width"], params["height"])
    model = FluxKontext.dev()
    conditions = FluxKontextConditions(
        text=torch.ones(1, 3, 4),
        pooled=torch.ones(1, 4),
        guidance=torch.tensor([params["guidance"]]),
        controls=() if shown is None else (_framed(torch.full(shown, 0.5)),),
    )
    network, sampler = Tokens("x_embedder"), model.sampler_for(size)
    latent_shape = model.geometry.latent_shape(size)
    tokens = model.geometry.tokens(latent_shape)
    # The reference draws tokens, and what it draws is rounded.
    generator = torch.Generator().manual_seed(params["seed"])
    drawn = torch.randn(1, tokens, 64, generator=generator).bfloat16().float()

    latents = sample_latents(
        model.denoiser(),
        network,
        unpatched(drawn, latent_shape[1:], (1, 2, 2)),
        positive=conditions,
        negative=conditions,
        sampler=sampler if params["flow_shift"] is None else sampler.replace(shift=float(params["flow_shift"])),
        guidance=Embedded(scale=params["guidance"]),
        steps=params["steps"],
        tokens=tokens,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )

    assert tokens == case["tokens"]
    assert network.guidance == {guidance for _, guidance, _ in case["calls"]}
    assert network.indices == case["image_id_axis0_values"]
    check_bfloat16(case, latents, network)


def _framed(latents: Tensor) -> Tensor:
    return latents[:, :, None] if latents.ndim == 4 else latents


def check_bfloat16(case: dict[str, Any], latents: Tensor, network: Tokens) -> None:
    """Compare with a loop of the reference, whose times and latents are rounded to bfloat16."""
    assert [shape for _, shape in network.asked] == [shape for *_, shape in case["calls"]]
    assert [time for time, _ in network.asked] == pytest.approx([time for time, *_ in case["calls"]], rel=2**-7)
    assert list(latents.shape) == [1, *case["latent_shape"][1:2], 1, *case["latent_shape"][-2:]]
    found = latents.double()
    assert found.flatten()[case["probe_index"]].tolist() == pytest.approx(case["probe"], abs=3e-2)
    assert (found.mean().item(), found.std().item()) == pytest.approx((case["mean"], case["std"]), abs=3e-2)
