"""FramePack's transformer on diffusers' class, with time, guidance and pooled text in float32.

Shapes: B batch, C latent channels, F frames, H and W rows and columns of latent cells, L text tokens, S tokens of the
clip and its history, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from torch import Tensor

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.framepack.facts import PATCH, DitFacts
from musubi.architectures.framepack.keys import DIT
from musubi.architectures.framepack.positions import padded, rotary_tables
from musubi.attention.ragged import cropped, ragged
from musubi.attention.refining import refined
from musubi.attention.rotary import followed_by_text, turns
from musubi.attention.streams import JointAttention, MergedAttention, TextAttention, equip
from musubi.embedding.conditioning import PreciseConditioning, PreciseTextTime
from musubi.embedding.patches import unpatched
from musubi.embedding.sinusoid import Sinusoid
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into

KEEP_FLOAT32 = (r"(context_embedder\.)?time_text_embed\..*",)
"""Small layers whose rounding would be an error that all tokens share."""


@attrs.frozen(kw_only=True, eq=False)
class History:
    """Clean latents at one of the three sizes of tokens, (B, C, F, H, W), and their positions in time (B, F)."""

    latents: Tensor
    positions: Tensor


def load_transformer(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> PreciseFramePack:
    """Load a transformer tensor by tensor, frozen and in evaluation mode; what ``KEEP_FLOAT32`` names stays float32.

    Raises:
        WeightsError: The file cannot be read, or is no FramePack transformer.
    """
    model = empty_transformer(DitFacts.of(checkpoint))
    if prepare is not None:
        prepare(model)
    load_into(model, checkpoint, keys=DIT, device=device, dtype=dtype, on_weight=on_weight, keep_float32=KEEP_FLOAT32)
    model.eval().requires_grad_(False)
    return model


def empty_transformer(facts: DitFacts) -> PreciseFramePack:
    """Build the transformer on the meta device.

    The class draws random numbers for parameters that are replaced at once; the caller's generator does not notice.
    """
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model: PreciseFramePack = PreciseFramePack(
            in_channels=facts.in_channels,
            out_channels=facts.out_channels,
            num_attention_heads=facts.dim // facts.head_dim,
            attention_head_dim=facts.head_dim,
            num_layers=facts.num_double,
            num_single_layers=facts.num_single,
            num_refiner_layers=facts.num_refiner,
            mlp_ratio=facts.mlp_dim / facts.dim,
            patch_size=PATCH[1],
            patch_size_t=PATCH[0],
            guidance_embeds=facts.guided,
            text_embed_dim=facts.text_dim,
            pooled_projection_dim=facts.pooled_dim,
            rope_axes_dim=facts.axes,
            has_image_proj=True,
            image_proj_dim=facts.image_dim,
            has_clean_x_embedder=True,
        )
        conditioning = PreciseConditioning(facts.dim, facts.pooled_dim, guided=facts.guided, waves=Sinusoid())
        model.register_module("time_text_embed", conditioning)
        model.context_embedder.time_text_embed = PreciseTextTime(facts.dim, facts.text_dim)
    equip(model.transformer_blocks, JointAttention())
    equip(model.single_transformer_blocks, MergedAttention())
    equip(model.context_embedder.token_refiner.refiner_blocks, TextAttention())
    model.eval().requires_grad_(False)
    return model


class PreciseFramePack(HunyuanVideoFramepackTransformer3DModel):
    """diffusers' blocks under a forward that takes samples at different positions, with or without each history.

    diffusers' own shares the first sample's positions with the whole batch and stops where a history is missing.
    """

    # Tensors are given by name; what diffusers' own forward takes besides (scales of its own LoRAs) has no place here.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        *,
        positions: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        image_embeds: Tensor,
        timestep: Tensor,
        encoder_attention_mask: Tensor | None = None,
        guidance: Tensor | None = None,
        clean: History | None = None,
        clean_2x: History | None = None,
        clean_4x: History | None = None,
    ) -> Tensor:
        """Return the velocity (B, C, F, H, W).

        Args:
            hidden_states: Latents to predict (B, C, F, H, W).
            positions: Their places in time (B, F).
            encoder_hidden_states: The language model's states (B, L, text width), shorter ones filled up at the end.
            pooled_projections: CLIP's vector (B, pooled width).
            image_embeds: SigLIP's states of the first frame (B, image tokens, image width).
            timestep: Noise levels times 1000, float32 (B,).
            encoder_attention_mask: True (B, L) where there is text; None where all is.
            guidance: The distilled guidance times 1000, float32 (B,); None for a model without.
            clean: History in tokens of usual size.
            clean_2x: History in tokens twice as large along each axis.
            clean_4x: History in tokens four times as large along each axis.
        """
        words, counts = cropped(encoder_hidden_states, encoder_attention_mask)
        tokens, places = self._placed(hidden_states, positions, (clean_4x, clean_2x, clean))
        conditioning = self.time_text_embed(timestep, guidance, pooled_projections).to(tokens.dtype)
        words = refined(self.context_embedder, words, timestep, counts)
        first_frame = self.get_submodule("image_projection")(image_embeds)
        known = ragged(counts, more=tokens.shape[1] + first_frame.shape[1], device=tokens.device)
        text = torch.cat([first_frame, words], dim=1)
        for block in self.transformer_blocks:
            tokens, text = block(tokens, text, conditioning, known, (places, None))
        places = followed_by_text(places, text.shape[1])
        for block in self.single_transformer_blocks:
            tokens, text = block(tokens, text, conditioning, known, places)
        size = hidden_states.shape[2:]
        predicted: Tensor = self.proj_out(self.norm_out(tokens[:, -size.numel() // math.prod(PATCH) :], conditioning))
        return unpatched(predicted, size, PATCH)

    def _placed(self, latents: Tensor, positions: Tensor, histories: Sequence[History | None]) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, S, D), histories first, the farthest one before the others, and their turns."""
        size = (latents.shape[-2] // PATCH[1], latents.shape[-1] // PATCH[2])
        axes = self.rope.rope_dim
        embedder = self.clean_x_embedder
        assert embedder is not None, "the transformer is built with a history"
        layers = (embedder.proj_4x, embedder.proj_2x, embedder.proj)
        tokens: list[Tensor] = []
        tables: list[tuple[Tensor, Tensor]] = []
        for history, layer, scale in zip(histories, layers, (4, 2, 1), strict=True):
            if history is not None:
                volume = padded(history.latents.to(latents.dtype), layer.kernel_size)
                tokens.append(layer(volume).flatten(2).transpose(1, 2))
                tables.append(rotary_tables(history.positions, size, axes, pooled=scale))
        tokens.append(self.x_embedder(latents))
        tables.append(rotary_tables(positions, size, axes))
        cos, sin = (torch.cat(parts, dim=1) for parts in zip(*tables, strict=True))
        return torch.cat(tokens, dim=1), turns(cos, sin)
