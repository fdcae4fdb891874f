"""Train the tiny Wan transformer together with its text encoder, by flow matching on latents."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from musubi.architectures.wan.attention import PaddingAttention
from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.latents import Latents, load_latents
from musubi.quickstart.build_base.loop import Chance, Schedule, averaged_weights, train
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.text import WIDTH, encode_captions, new_encoder

CONFIG: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 5,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": WIDTH,
    "freq_dim": 256,
    "ffn_dim": 480,
    "num_layers": 6,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
}
SCHEDULE = Schedule(steps=7800, rate=2e-3, warmup=200, hold=0.5, average=0.998)
SHIFT = 2.0
EMPTY_CAPTIONS = 0.1
PICTURE_BATCH = 32
CLIP_BATCH = 12
CLIP_SHARE = 0.3


@attrs.frozen(kw_only=True, eq=False)
class Denoiser:
    """Hold the transformer and its text encoder as one trained thing."""

    dit: WanTransformer3DModel
    text: UMT5EncoderModel

    @property
    def module(self) -> nn.ModuleDict:
        """Return both as one module."""
        return nn.ModuleDict({"dit": self.dit, "text": self.text})

    def velocity(self, noisy_BCFHW: Tensor, sigma_B: Tensor, text_BLC: Tensor) -> Tensor:
        """Predict noise minus clean latents."""
        result: Tensor = self.dit(noisy_BCFHW, 1000 * sigma_B, text_BLC, return_dict=False)[0]
        return result


def train_dit(options: Options, group: Group) -> None:
    """Train to the end of the schedule; `dit.pt` holds the result."""
    denoiser = new_denoiser(options.seed)
    denoiser.module.to(options.device)
    train(DitStage(denoiser, load_latents(options.out)), SCHEDULE, options, group)


class DitStage:
    """Match the flow from clean latents to noise, pictures in some steps and clips in the others."""

    name = "dit"

    def __init__(self, denoiser: Denoiser, latents: Latents) -> None:
        self.denoiser, self.latents = denoiser, latents
        self.module: nn.Module = denoiser.module
        self.parameters = list(self.module.parameters())

    def loss(self, chance: Chance) -> Tensor:
        """Return the mean squared error of the velocity."""
        clean, captions = self._batch(chance)
        sigma = noise_levels(len(clean), chance.torch).to(clean)
        noise = torch.randn(clean.shape, generator=chance.torch).to(clean)
        wide = sigma.view(-1, 1, 1, 1, 1)
        text = encode_captions(self.denoiser.text, captions)
        predicted = self.denoiser.velocity((1 - wide) * clean + wide * noise, sigma, text)
        return nn.functional.mse_loss(predicted, noise - clean)

    def _batch(self, chance: Chance) -> tuple[Tensor, list[str]]:
        moving = chance.shared.random() < CLIP_SHARE
        latents = self.latents.clips if moving else self.latents.pictures
        captions = self.latents.clip_captions if moving else self.latents.picture_captions
        chosen = chance.numpy.integers(len(latents), size=CLIP_BATCH if moving else PICTURE_BATCH)
        kept = chance.numpy.random(len(chosen)) >= EMPTY_CAPTIONS
        clean = latents[torch.from_numpy(chosen)].to(self.denoiser.dit.device)
        return clean, [captions[index] if keep else "" for index, keep in zip(chosen, kept, strict=True)]


def new_denoiser(seed: int) -> Denoiser:
    """Build transformer and text encoder with fresh weights."""
    torch.manual_seed(seed)
    denoiser = Denoiser(dit=WanTransformer3DModel(**CONFIG), text=new_encoder())
    nn.init.normal_(denoiser.dit.proj_out.weight, std=1e-3)
    nn.init.zeros_(denoiser.dit.proj_out.bias)
    for block in denoiser.dit.blocks:
        attention: Any = block.get_submodule("attn2")
        attention.set_processor(PaddingAttention())
        nn.init.constant_(attention.norm_q.weight, 1.6)  # else the words drown in 500 padding keys for long
        nn.init.constant_(attention.norm_k.weight, 1.6)
    return denoiser


def load_denoiser(path: Path) -> Denoiser:
    """Load the averaged weights of a checkpoint."""
    denoiser = new_denoiser(0)
    denoiser.module.load_state_dict(averaged_weights(path))
    return denoiser


def noise_levels(count: int, generator: torch.Generator) -> Tensor:
    """Draw noise levels evenly over (0, 1), then push them towards noise by SHIFT."""
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return SHIFT * even / (1 + (SHIFT - 1) * even)


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    captions: Sequence[str],
    *,
    frames: int = 1,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 4.0,
    shift: float = 3.0,
) -> Tensor:
    """Draw normalised latents for captions by Euler steps, as (captions, 16, frames, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(captions), 16, frames, 8, 8, generator=generator).to(denoiser.dit.device)
    text = encode_captions(denoiser.text, [*captions, *[""] * len(captions)])
    even = torch.linspace(1, 0, steps + 1)
    sigmas = shift * even / (1 + (shift - 1) * even)
    for sigma, following in pairwise(sigmas.tolist()):
        both = denoiser.velocity(torch.cat([latents, latents]), latents.new_full((2 * len(captions),), sigma), text)
        worded, wordless = both.chunk(2)
        latents = latents + (following - sigma) * (wordless + guidance * (worded - wordless))
    return latents
