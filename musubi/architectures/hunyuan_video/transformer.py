"""HunyuanVideo's transformer on diffusers' class, with time, guidance and pooled text in float32.

Shapes: B batch, C latent channels, F frames, H and W rows and columns of latent cells, L text tokens, S tokens of the
clip, D width.
"""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from torch import Tensor

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.hunyuan_video.facts import PATCH, DitFacts, has_library_names
from musubi.architectures.hunyuan_video.keys import DIT
from musubi.attention.ragged import cropped, ragged
from musubi.attention.refining import refined
from musubi.attention.rotary import followed_by_text, turns
from musubi.attention.streams import JointAttention, MergedAttention, TextAttention, equip
from musubi.embedding.conditioning import PreciseConditioning, PreciseTextTime
from musubi.embedding.patches import unpatched
from musubi.embedding.shift_scale import ShiftScaleNorm, shift_first
from musubi.embedding.sinusoid import Sinusoid
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into

KEEP_FLOAT32 = (r"(time|vector|guidance)_in\..*", r"txt_in\.(t|c)_embedder\..*")
"""Small layers whose rounding would be an error that all tokens share: original names."""

_FINAL = "final_layer.adaLN_modulation.1"


def load_transformer(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> PreciseHunyuanVideo:
    """Load a transformer tensor by tensor, frozen and in evaluation mode; what ``KEEP_FLOAT32`` names stays float32.

    The file may have original names (Tencent, ComfyUI) or be in diffusers' layout; ``on_weight`` sees original names
    and the original order of rows either way.

    Raises:
        WeightsError: The file cannot be read, or is no HunyuanVideo transformer.
    """
    model = empty_transformer(DitFacts.of(checkpoint))
    if prepare is not None:
        prepare(model)
    load_into(
        model,
        checkpoint,
        keys=DIT,
        device=device,
        dtype=dtype,
        on_weight=shift_first(on_weight, module=_FINAL) if has_library_names(checkpoint) else on_weight,
        keep_float32=KEEP_FLOAT32,
    )
    model.eval().requires_grad_(False)
    return model


def empty_transformer(facts: DitFacts) -> PreciseHunyuanVideo:
    """Build the transformer on the meta device.

    The class draws random numbers for parameters that are replaced at once; the caller's generator does not notice.
    """
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model: PreciseHunyuanVideo = PreciseHunyuanVideo(
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
        )
        conditioning = PreciseConditioning(facts.dim, facts.pooled_dim, guided=facts.guided, waves=Sinusoid())
        model.register_module("time_text_embed", conditioning)
        model.context_embedder.time_text_embed = PreciseTextTime(facts.dim, facts.text_dim)
        model.norm_out = ShiftScaleNorm(facts.dim, facts.dim, elementwise_affine=False, eps=1e-6)
    equip(model.transformer_blocks, JointAttention())
    equip(model.single_transformer_blocks, MergedAttention())
    equip(model.context_embedder.token_refiner.refiner_blocks, TextAttention())
    model.eval().requires_grad_(False)
    return model


class PreciseHunyuanVideo(HunyuanVideoTransformer3DModel):
    """diffusers' blocks under a forward that keeps the time in float32 and builds no mask.

    A mask, even one that masks nothing, keeps attention from its fast kernels. What is padding in all samples goes no
    further than the first line, and no sample depends on how much of it there was.
    """

    # Tensors are given by name; what diffusers' own forward takes besides (scales of its own LoRAs) has no place here.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        encoder_attention_mask: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Return the velocity (B, C, F, H, W).

        Args:
            hidden_states: Latents (B, C, F, H, W); of SkyReels' model with the first frame's as further channels.
            encoder_hidden_states: The language model's states (B, L, text width), shorter ones filled up at the end.
            pooled_projections: CLIP's vector (B, pooled width).
            timestep: Noise levels times 1000, float32 (B,).
            encoder_attention_mask: True (B, L) where there is text; None where all is.
            guidance: The distilled guidance times 1000, float32 (B,); None for a model without.
        """
        text, counts = cropped(encoder_hidden_states, encoder_attention_mask)
        tokens = self.x_embedder(hidden_states)
        conditioning = self.time_text_embed(timestep, guidance, pooled_projections).to(tokens.dtype)
        known = ragged(counts, more=tokens.shape[1], device=tokens.device)
        places = turns(*self.rope(hidden_states))
        text = refined(self.context_embedder, text, timestep, counts)
        for block in self.transformer_blocks:
            tokens, text = block(tokens, text, conditioning, known, (places, None))
        places = followed_by_text(places, text.shape[1])
        for block in self.single_transformer_blocks:
            tokens, text = block(tokens, text, conditioning, known, places)
        predicted: Tensor = self.proj_out(self.norm_out(tokens, conditioning))
        return unpatched(predicted, hidden_states.shape[2:], PATCH)
