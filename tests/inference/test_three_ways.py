"""The same adapter attached live, merged while loading, and loaded by diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline as DiffusersPipeline
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor

from musubi.architectures.wan.api import WanPipeline
from musubi.architectures.wan.spec import Wan
from musubi.inference.decoding import decode, opened_decoder
from musubi.inference.denoising import ready
from musubi.inference.engine import draw_noise, sample_latents
from musubi.inference.loras import LoRAUse
from musubi.inference.media import Video
from musubi.inference.prompts import Words, encode_prompts, words_of
from musubi.noise.guidance import ClassifierFree
from musubi.testing.checkpoints import tiny_wan
from tests.inference.reference_grid import ReferenceGrid, padded

PROMPT, NEGATIVE = "a clay fox walks through snow", "grey"
SIZE, FRAMES, STEPS, SEED, GUIDANCE, WEIGHT = (64, 48), 9, 4, 7, 2.0, 0.8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def diffusers_frames(wan: Wan, wan_lora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Return what diffusers makes without and with the LoRA, as float frames (F, H, W, 3)."""
    folder = tmp_path_factory.mktemp("diffusers")
    tiny_wan(folder, layout="diffusers")
    scheduler: Any = ReferenceGrid
    pipeline: Any = DiffusersPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=WanTransformer3DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKLWan.from_pretrained(folder / "vae"),
        scheduler=scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    prompts = encode_prompts(wan, words_of(wan, [PROMPT, NEGATIVE]), device=CPU, dtype=torch.float32)
    texts = [padded(prompts.tensors[Words(text)]["varlen_t5"]) for text in (PROMPT, NEGATIVE)]
    frames = {"bare": _draw(pipeline, texts)}
    pipeline.load_lora_weights(wan_lora, adapter_name="clay")
    pipeline.set_adapters("clay", WEIGHT)
    return {**frames, "lora": _draw(pipeline, texts)}


def _draw(pipeline: Any, texts: list[Tensor]) -> Tensor:
    shape = Wan.t2v_1_3b().geometry.latent_shape(SIZE, FRAMES)
    output = pipeline(
        prompt_embeds=texts[0],
        negative_prompt_embeds=texts[1],
        width=SIZE[0],
        height=SIZE[1],
        num_frames=FRAMES,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=draw_noise(shape, [SEED]),
        output_type="np",
    )
    return torch.from_numpy(output.frames[0])


def ours(wan: Wan, *loras: LoRAUse) -> Tensor:
    """Return our frames as floats: uint8 would hide differences below 1/510."""
    prompts = encode_prompts(wan, words_of(wan, [PROMPT, NEGATIVE]), device=CPU, dtype=torch.float32)
    geometry = wan.geometry
    shape = geometry.latent_shape(SIZE, FRAMES)
    files = [(use, use.file()) for use in loras]
    with ready(wan, loras=files, policies=(), device=CPU, dtype=torch.float32) as loaded:
        latents = sample_latents(
            loaded.denoiser,
            loaded.model,
            draw_noise(shape, [SEED]),
            positive=prompts.conditions(loaded.denoiser, words_of(wan, [PROMPT]), device=CPU),
            negative=prompts.conditions(loaded.denoiser, words_of(wan, [NEGATIVE]), device=CPU),
            sampler=wan.sampler,
            guidance=ClassifierFree(scale=GUIDANCE),
            steps=STEPS,
            tokens=geometry.tokens(shape),
            device=CPU,
            dtype=torch.float32,
            adapters=loaded.adapters,
        )
    with opened_decoder(wan, device=CPU) as decoder:
        return decode(wan, decoder, latents)[0]


@pytest.fixture(scope="module")
def our_frames(wan: Wan, wan_lora: Path) -> dict[str, Tensor]:
    return {
        "bare": ours(wan),
        "attached": ours(wan, LoRAUse(path=wan_lora, weight=WEIGHT)),
        "merged": ours(wan, LoRAUse(path=wan_lora, weight=WEIGHT, merge=True)),
    }


def test_the_lora_has_an_effect_worth_comparing(our_frames: dict[str, Tensor]) -> None:
    assert (our_frames["attached"] - our_frames["bare"]).abs().mean() > 0.01


def test_without_a_lora_diffusers_makes_the_same_video(
    our_frames: dict[str, Tensor], diffusers_frames: dict[str, Tensor]
) -> None:
    torch.testing.assert_close(our_frames["bare"], diffusers_frames["bare"], atol=1e-4, rtol=0)


def test_attached_and_merged_make_the_same_video(our_frames: dict[str, Tensor]) -> None:
    difference = (our_frames["attached"] - our_frames["merged"]).abs()

    assert difference.mean() < 1e-6
    assert difference.max() < 4e-5  # float32's rounding, which the random decoder amplifies in a few pixels


def test_loaded_by_diffusers_the_lora_makes_the_same_video(
    our_frames: dict[str, Tensor], diffusers_frames: dict[str, Tensor]
) -> None:
    torch.testing.assert_close(our_frames["attached"], diffusers_frames["lora"], atol=1e-4, rtol=0)


def test_the_pipeline_makes_this_video(wan: Wan, wan_lora: Path, our_frames: dict[str, Tensor]) -> None:
    video = (
        WanPipeline(model=wan, device="cpu")
        .with_lora(wan_lora, weight=WEIGHT)
        .generate(PROMPT, negative=NEGATIVE, size=SIZE, frames=FRAMES, steps=STEPS, guidance=GUIDANCE, seed=SEED)
    )

    assert isinstance(video, Video)
    assert video == Video(our_frames["attached"], fps=16)
