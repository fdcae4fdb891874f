"""diffusers' own pipelines of Wan load our LoRAs and come to our latents: the same noise, grid and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from diffusers import WanPipeline as DiffusersPipeline
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from PIL import Image as Pillow
from torch import Tensor

from musubi import PerExpert, Wan, WanPipeline
from musubi.architectures.wan.tasks import Task
from musubi.inference.asking import ask, read_given
from musubi.inference.engine import draw_noise
from musubi.inference.prompts import encode_prompts, words_of
from musubi.inference.request import Request
from musubi.testing.checkpoints import tiny_wan
from tests.inference.conftest import lora_for
from tests.inference.reference_grid import ReferenceGrid, padded

PROMPT, NEGATIVE = "a clay fox walks through snow", "grey"
FRAMES, STEPS, SEED = 5, 6, 7
CPU = torch.device("cpu")


@attrs.frozen
class Case:
    """A task as diffusers' pipelines do it: what it is shown, and what the pipeline must be told of the model."""

    task: Task
    shows: tuple[str, ...] = ()
    config: Mapping[str, Any] = attrs.field(factory=dict)
    scales: tuple[float, float] = (2.0, 2.0)


CASES: Mapping[str, Case] = {
    "t2v_1_3b": Case("t2v_1_3b"),
    "i2v_14b": Case("i2v_14b", ("image",)),
    "flf2v_14b": Case("flf2v_14b", ("image", "last")),
    "t2v_a14b": Case("t2v_a14b", config={"boundary_ratio": 0.875}, scales=(2.0, 1.5)),
    "i2v_a14b": Case("i2v_a14b", ("image",), {"boundary_ratio": 0.9}, (2.0, 1.5)),
    "ti2v_5b": Case("ti2v_5b", config={"expand_timesteps": True}),
    "ti2v_5b from a picture": Case("ti2v_5b", ("image",), {"expand_timesteps": True}),
}


@attrs.frozen(eq=False)
class Scene:
    """A task's tiny files, a LoRA for each transformer, and what is asked for."""

    case: Case
    wan: Wan
    folder: Path
    loras: tuple[Path, ...]
    request: Request

    def ours(self, loras: tuple[int, ...]) -> Tensor:
        """Return our latents with some of the LoRAs."""
        pipeline = WanPipeline(model=self.wan, device="cpu", dtype="float32")
        for number in loras:
            expert = self.wan.experts[number].name if len(self.wan.experts) > 1 else None
            pipeline = pipeline.with_lora(self.loras[number], expert=expert)
        return pipeline.draw_latents(self.request).tensor

    def theirs(self, loras: tuple[int, ...]) -> Tensor:
        """Return diffusers' latents with some of the LoRAs."""
        pipeline = self._pipeline()
        pipeline.encode_image = self._features
        for number in loras:
            second = number == 1
            pipeline.load_lora_weights(self.loras[number], adapter_name=f"{number}", load_into_transformer_2=second)
        width, height = self.request.size or (0, 0)
        words = words_of(self.wan, [PROMPT, NEGATIVE])
        texts = encode_prompts(self.wan, words, device=CPU, dtype=torch.float32).tensors
        output = pipeline(
            **self._shown(),
            prompt_embeds=padded(texts[words[0]]["varlen_t5"]),
            negative_prompt_embeds=padded(texts[words[1]]["varlen_t5"]),
            width=width,
            height=height,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=self.case.scales[0],
            **({"guidance_scale_2": self.case.scales[1]} if len(self.wan.experts) > 1 else {}),
            latents=draw_noise(self.wan.geometry.latent_shape((width, height), FRAMES), [SEED]),
            output_type="latent",
        )
        latents: Tensor = output.frames[0]
        return latents

    def _pipeline(self) -> Any:
        folder, two = self.folder, len(self.wan.experts) > 1
        shift = getattr(self.wan.sampler_for(self.request.size or (0, 0)), "shift", None)
        scheduler: Any = ReferenceGrid
        names = ("transformer", "transformer_2") if two else ("transformer",)
        pipeline: Any = (WanImageToVideoPipeline if self.case.shows else DiffusersPipeline)(
            tokenizer=None,
            text_encoder=None,
            vae=AutoencoderKLWan.from_pretrained(folder / "vae"),
            scheduler=scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
            **{name: WanTransformer3DModel.from_pretrained(folder / name) for name in names},
            **self.case.config,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _shown(self) -> dict[str, Any]:
        names = {"image": "image", "last": "last_image"}
        return {names[role]: picture(self.wan, number) for number, role in enumerate(self.case.shows)}

    def _features(self, *_: object) -> Tensor:
        """Return our features of the pictures in place of diffusers', which crops and scales for CLIP otherwise."""
        job = self.request.job(self.wan)
        (given,) = ask(self.wan, [job], [read_given(job, self.wan.geometry)], device=CPU, dtype=torch.float32)
        return given["clip"].reshape(len(self.case.shows), -1, given["clip"].shape[-1])


def picture(wan: Wan, seed: int) -> Pillow.Image:
    width, height = size_of(wan)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Pillow.fromarray(pixels)


def size_of(wan: Wan) -> tuple[int, int]:
    return 2 * wan.geometry.multiple, 3 * wan.geometry.multiple


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what sets a scene, once each."""

    @cache
    def scene_of(name: str) -> Scene:
        case, folder = CASES[name], tmp_path_factory.mktemp("scene")
        wan = tiny_wan(folder / "files", task=case.task)
        tiny_wan(folder / "theirs", task=case.task, layout="diffusers")
        request = Request(
            PROMPT,
            negative=NEGATIVE,
            size=size_of(wan),
            frames=FRAMES,
            steps=STEPS,
            seed=SEED,
            guidance=PerExpert(high=case.scales[0], low=case.scales[1]) if len(wan.experts) > 1 else case.scales[0],
            image=picture(wan, 0) if "image" in case.shows else None,
            last=picture(wan, 1) if "last" in case.shows else None,
        )
        loras = tuple(
            lora_for(wan, seed=number).save(folder / f"{expert.name}.safetensors")
            for number, expert in enumerate(wan.experts)
        )
        return Scene(case, wan, folder / "theirs", loras, request)

    return scene_of


@pytest.mark.parametrize("name", CASES)
def test_diffusers_comes_to_our_latents_with_our_loras(name: str, scene: Any) -> None:
    at = scene(name)
    everything = tuple(range(len(at.loras)))

    ours, bare = at.ours(everything), at.ours(())

    assert (ours - bare).abs().mean() > 0.01, "the LoRA has no effect worth comparing"
    torch.testing.assert_close(ours, at.theirs(everything), rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", [0, 1], ids=["high", "low"])
def test_a_lora_of_one_expert_is_that_of_one_transformer(number: int, scene: Any) -> None:
    at = scene("t2v_a14b")

    alone = at.ours((number,))

    torch.testing.assert_close(alone, at.theirs((number,)), rtol=0, atol=1e-4)
    assert (alone - at.ours((0, 1))).abs().mean() > 1e-3
