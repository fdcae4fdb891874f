"""Wan's VAEs, 2.1 and 2.2, on diffusers' class.

Shape suffixes: B batch, C channels, F frames, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.wan.facts import TOLD
from musubi.architectures.wan.fit import expect, legible
from musubi.architectures.wan.vae22_facts import Vae22Facts
from musubi.architectures.wan.vae22_keys import vae22_keys
from musubi.causal_vae.facts import VaeFacts
from musubi.causal_vae.keys import vae_keys
from musubi.keymap import KeyMap
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.load import load_into

VaeKind = Literal["vae", "vae22"]
"""Wan 2.1's, of 16 channels and stride 8, which Wan 2.2 A14B has, too; or the one of Wan 2.2 TI2V-5B: 48 and 16."""


def load_vae(
    path: Path,
    *,
    kind: VaeKind = "vae",
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> AutoencoderKLWan:
    """Load a VAE of one kind from a file or folder of any layout, frozen; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        vae, keys = _empty(checkpoint, kind)
        if prepare is not None:
            prepare(vae)
        load_into(vae, checkpoint, keys=keys, device=device, dtype=dtype, on_weight=on_weight)
    vae.eval().requires_grad_(False)
    return vae


def _empty(checkpoint: Checkpoint, kind: VaeKind) -> tuple[AutoencoderKLWan, KeyMap]:
    """Return the VAE that a checkpoint is for, on the meta device, and its names."""
    found = expect(checkpoint, kind, component="vae")
    with legible(checkpoint):
        if kind == "vae22":
            large = Vae22Facts.of(checkpoint, found)
            return empty_vae22(large), vae22_keys(num_res_blocks=large.num_res_blocks)
        facts = VaeFacts.of(found.shapes, mean=TOLD.mean(checkpoint), std=TOLD.std(checkpoint))
    keys = vae_keys(num_stages=len(facts.dim_mult), num_res_blocks=facts.num_res_blocks)
    return empty_vae(facts), keys


def empty_vae(facts: VaeFacts) -> AutoencoderKLWan:
    """Build diffusers' VAE on the meta device, of Wan 2.1."""
    with init_empty_weights():
        vae: AutoencoderKLWan = AutoencoderKLWan(
            base_dim=facts.base_dim,
            z_dim=facts.z_dim,
            dim_mult=list(facts.dim_mult),
            num_res_blocks=facts.num_res_blocks,
            temperal_downsample=list(facts.temporal_downsample),
            latents_mean=list(facts.latents_mean),
            latents_std=list(facts.latents_std),
        )
    return vae


def empty_vae22(facts: Vae22Facts) -> AutoencoderKLWan:
    """Build diffusers' VAE on the meta device, of Wan 2.2."""
    with init_empty_weights():
        vae: AutoencoderKLWan = AutoencoderKLWan(
            base_dim=facts.base_dim,
            decoder_base_dim=facts.decoder_dim,
            z_dim=facts.z_dim,
            dim_mult=list(facts.dim_mult),
            num_res_blocks=facts.num_res_blocks,
            temperal_downsample=list(facts.temporal_downsample),
            latents_mean=list(facts.latents_mean),
            latents_std=list(facts.latents_std),
            is_residual=True,
            in_channels=facts.channels,
            out_channels=facts.channels,
            patch_size=facts.patch,
            scale_factor_spatial=2 ** (len(facts.dim_mult) - 1) * facts.patch,
        )
    return vae
