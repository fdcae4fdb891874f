"""Qwen-Image's VAE, which is the causal video VAE for single pictures, on diffusers' class."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.qwen_image.vae_facts import vae_facts
from musubi.causal_vae.facts import VaeFacts
from musubi.causal_vae.keys import vae_keys
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into


def load_vae(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> AutoencoderKLQwenImage:
    """Load the VAE from a file or folder, frozen; in diffusers' names, as published, or in the original ones.

    Raises:
        WeightsError: It cannot be read, or is something else.
    """
    with open_checkpoint(path) as checkpoint:
        facts = vae_facts(checkpoint)
        vae = empty_vae(facts)
        if prepare is not None:
            prepare(vae)
        keys = vae_keys(num_stages=len(facts.dim_mult), num_res_blocks=facts.num_res_blocks)
        load_into(vae, checkpoint, keys=keys, device=device, dtype=dtype, on_weight=on_weight)
    vae.eval().requires_grad_(False)
    return vae


def empty_vae(facts: VaeFacts) -> AutoencoderKLQwenImage:
    """Build diffusers' VAE on the meta device."""
    with init_empty_weights():
        vae: AutoencoderKLQwenImage = AutoencoderKLQwenImage(
            base_dim=facts.base_dim,
            z_dim=facts.z_dim,
            dim_mult=list(facts.dim_mult),
            num_res_blocks=facts.num_res_blocks,
            temperal_downsample=list(facts.temporal_downsample),
            input_channels=facts.in_channels,
            latents_mean=list(facts.latents_mean),
            latents_std=list(facts.latents_std),
        )
    return vae
