"""diffusers' pipeline of FLUX.1 Kontext around tiny files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from musubi.architectures.flux_kontext import clip, t5


def pipeline_of(folder: Path) -> Any:
    """Return diffusers' pipeline on a folder of it."""
    kind: Any = FluxKontextPipeline
    schedule: Any = FlowMatchEulerDiscreteScheduler
    tokenizers: dict[str, Any] = {
        "tokenizer": clip.load_tokenizer(folder / "tokenizer"),
        "tokenizer_2": t5.load_tokenizer(folder / "tokenizer_2"),
    }
    made: Any = kind(
        transformer=FluxTransformer2DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
        scheduler=schedule(
            base_image_seq_len=256,
            max_image_seq_len=4096,
            base_shift=0.5,
            max_shift=1.15,
            use_dynamic_shifting=True,
        ),
        **tokenizers,
    )
    made.set_progress_bar_config(disable=True)
    return made
