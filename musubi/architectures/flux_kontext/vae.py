"""FLUX.1's VAE on diffusers' class.

Shape suffixes: B batch, C channels, F frames (one), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.flux_kontext.vae_facts import FILE_PREFIXES, SCALE, SHIFT, VaeFacts
from musubi.architectures.flux_kontext.vae_keys import ATTENTION, vae_keys
from musubi.data.media.frames import scaled
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into


def load_vae(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> AutoencoderKL:
    """Load the VAE from a file or folder, frozen; in original names or diffusers'.

    Raises:
        WeightsError: It cannot be read, or is something else.
    """
    with open_checkpoint(path) as checkpoint:
        facts = VaeFacts.of(checkpoint)
        vae = empty_vae(facts)
        if prepare is not None:
            prepare(vae)
        if facts.original_names:
            _replace_attention(vae, _as_convolution)
        load_into(
            vae,
            checkpoint,
            keys=vae_keys(num_levels=len(facts.channels)),
            device=device,
            dtype=dtype,
            prefixes=FILE_PREFIXES,
            on_weight=on_weight,
        )
    _replace_attention(vae, _as_linear)
    vae.eval().requires_grad_(False)
    return vae


def empty_vae(facts: VaeFacts) -> AutoencoderKL:
    """Build diffusers' VAE on the meta device."""
    levels = len(facts.channels)
    sizes: Mapping[str, Any] = {  # the class says that each of these tuples has one element
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": facts.channels,
    }
    with init_empty_weights():
        vae: AutoencoderKL = AutoencoderKL(
            **sizes,
            layers_per_block=facts.num_res_blocks,
            latent_channels=facts.latent_channels,
            scaling_factor=SCALE,
            shift_factor=SHIFT,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    return vae


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels_BFHWC: Tensor) -> Tensor:
    """Return the latents (B, C, 1, H, W) of uint8 pictures: the posterior's mean, scaled, in the VAE's type."""
    pictures_BCHW = scaled(pixels_BFHWC.to(vae.device))[:, :, 0]
    posterior = vae.encode(pictures_BCHW.to(vae.dtype), return_dict=False)[0]
    latents: Tensor = SCALE * (posterior.mode().float() - SHIFT)
    return latents.to(vae.dtype)[:, :, None]


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents_BCFHW: Tensor) -> Tensor:
    """Return frames of shape (B, 1, H, W, 3) as float32 in [0, 1], one picture at a time."""
    unscaled = latents_BCFHW[:, :, 0].to(vae.device, torch.float32) / SCALE + SHIFT
    decode = cast(Any, vae).decode
    pictures: list[Tensor] = [decode(one[None].to(vae.dtype), return_dict=False)[0].float() for one in unscaled]
    return (torch.cat(pictures).clamp(-1.0, 1.0).permute(0, 2, 3, 1)[:, None] + 1.0) / 2.0


def _replace_attention(vae: AutoencoderKL, replace: Callable[[nn.Module], nn.Module]) -> None:
    """Replace the layers of the attention in the middle."""
    for side in (vae.encoder, vae.decoder):
        for name in ATTENTION:
            owner, _, leaf = f"mid_block.attentions.0.{name}".rpartition(".")
            side.get_submodule(owner).add_module(leaf, replace(side.get_submodule(f"{owner}.{leaf}")))


def _as_convolution(layer: nn.Module) -> nn.Module:
    """Return an empty convolution of one pixel, as the original has it, in the place of a Linear."""
    rows, columns = layer.get_parameter("weight").shape
    return nn.Conv2d(columns, rows, 1, device="meta")


def _as_linear(layer: nn.Module) -> nn.Module:
    """Return a convolution of one pixel as the Linear that it is; a Linear stays."""
    if not isinstance(layer, nn.Conv2d):
        return layer
    linear = nn.Linear(layer.in_channels, layer.out_channels, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach()[..., 0, 0], requires_grad=False)
    linear.bias = nn.Parameter(layer.get_parameter("bias").detach(), requires_grad=False)
    return linear
