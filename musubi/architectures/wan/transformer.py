"""diffusers' transformer with what Wan's authors do otherwise: the time path in float32, short texts, places in time.

Shapes: B batch, F frames, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_wan import (
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
    WanTransformer3DModel,
)
from torch import Tensor

from musubi.architectures.wan.attention import PaddedText, PaddingAttention, SelfAttention, padded_text
from musubi.architectures.wan.facts import DitFacts


def empty_transformer(facts: DitFacts) -> WanTransformer3DModel:
    """Build diffusers' transformer on the meta device with the precise time path; rope tables are real.

    The class draws random numbers for parameters that are replaced at once; the caller's generator does not notice.
    """
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model: WanTransformer3DModel = WanTransformer3DModel(
            patch_size=facts.patch,
            num_attention_heads=facts.num_heads,
            attention_head_dim=facts.dim // facts.num_heads,
            in_channels=facts.in_channels,
            out_channels=facts.out_channels,
            text_dim=facts.text_dim,
            freq_dim=facts.freq_dim,
            ffn_dim=facts.ffn_dim,
            num_layers=facts.num_layers,
            image_dim=facts.image_dim,
            added_kv_proj_dim=facts.dim if facts.image_keys else None,
            pos_embed_seq_len=facts.image_tokens,
        )
        model.condition_embedder = PreciseEmbedding(
            dim=facts.dim,
            time_freq_dim=facts.freq_dim,
            time_proj_dim=facts.dim * 6,
            text_embed_dim=facts.text_dim,
            image_embed_dim=facts.image_dim,
            pos_embed_seq_len=facts.image_tokens,
        )
        model.rope = PlacedRope(facts.dim // facts.num_heads, facts.patch, model.config["rope_max_seq_len"])
    model.eval().requires_grad_(False)
    for block in model.blocks:
        own: Any = block.get_submodule("attn1")
        own.set_processor(SelfAttention())
        across: Any = block.get_submodule("attn2")
        across.set_processor(PaddingAttention())
    return model


_PLACES: ContextVar[Tensor | None] = ContextVar("places in time of latent frames", default=None)


@contextmanager
def places_in_time(places: Tensor | None) -> Generator[None]:
    """Put latent frames at given places, (F) or (B, F), for what a thread asks a model in a ``with``.

    None leaves them where they are, one after the other.
    """
    token = _PLACES.set(places)
    try:
        yield
    finally:
        _PLACES.reset(token)


class PlacedRope(WanRotaryPosEmbed):
    """Rotary tables for frames at given places in time, in each item its own."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    # diffusers says that it returns one tensor, and returns these two.
    def forward(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hidden_states: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (1 or B, tokens, 1, head width)."""
        places = _PLACES.get()
        if places is None:
            return cast(tuple[Tensor, Tensor], super().forward(hidden_states))
        _, _, frames, height, width = hidden_states.shape
        sizes = [side // step for side, step in zip((frames, height, width), self.patch_size, strict=True)]
        at_BF = places.to(hidden_states.device, torch.long).reshape(-1, sizes[0])
        return self._placed(self.freqs_cos, at_BF, sizes), self._placed(self.freqs_sin, at_BF, sizes)

    def _placed(self, table: Tensor, at_BF: Tensor, sizes: list[int]) -> Tensor:
        frames, height, width = sizes
        time, down, across = table.split([self.t_dim, self.h_dim, self.w_dim], dim=1)
        shape = (len(at_BF), frames, height, width, -1)
        parts = (
            time[at_BF][:, :, None, None].expand(shape),
            down[:height].view(1, 1, height, 1, -1).expand(shape),
            across[:width].view(1, 1, 1, width, -1).expand(shape),
        )
        return torch.cat(parts, dim=-1).reshape(len(at_BF), frames * height * width, 1, -1)


class PreciseEmbedding(WanTimeTextImageEmbedding):
    """Embed the time as Wan's authors do: sinusoid in float64, layers in float32 whatever the model's type.

    diffusers rounds the time to the model's type, an error that all tokens share.
    """

    # The text comes with what its padding counts, which PaddingAttention takes: worked out here, once for all blocks.
    def forward(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        timestep_seq_len: int | None = None,
    ) -> tuple[Tensor, Tensor, PaddedText, None]:
        """Return time embedding, modulation (both float32), the text with the image's embeddings, and None.

        diffusers would lay an image before the text, and count on 512 tokens of the latter to find it again.
        """
        waves = sinusoid(timestep, self.timesteps_proj.num_channels)
        if timestep_seq_len is not None:
            waves = waves.unflatten(0, (-1, timestep_seq_len))
        with torch.autocast(timestep.device.type, enabled=False):
            time = self.time_embedder(waves)
            modulation = self.time_proj(self.act_fn(time))
        image = encoder_hidden_states_image
        if image is not None:
            assert self.image_embedder is not None, "only a model that attends to images is shown one"
            image = self.image_embedder(image)
        return time, modulation, padded_text(self.text_embedder(encoder_hidden_states), image), None


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of ``timestep * 10000 ** (-i / half)``, computed in float64, as float32."""
    exact = timestep.to("cpu" if timestep.device.type == "mps" else timestep.device, torch.float64)
    half = width // 2
    powers = torch.arange(half, dtype=torch.float64, device=exact.device) / half
    angles = exact[:, None] * torch.pow(10000, -powers)
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(timestep.device, torch.float32)
