"""FLUX.1's transformer on diffusers' class, with time, guidance and pooled text in float32.

Shapes: B batch, S image tokens (the picture's, then the control's), L text tokens, C channels of a token, D width.
"""

from __future__ import annotations

import torch
from accelerate import init_empty_weights
from diffusers.models.embeddings import Timesteps
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.flux_kontext.facts import DitFacts, has_library_names
from musubi.architectures.flux_kontext.keys import DIT
from musubi.attention.rotary import turns
from musubi.attention.streams import JointAttention, MergedAttention, equip
from musubi.embedding.conditioning import PreciseConditioning
from musubi.embedding.shift_scale import ShiftScaleNorm, shift_first
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into

KEEP_FLOAT32 = (r"(time|vector|guidance)_in\..*",)
"""Small layers whose rounding would be an error that all tokens share: original names."""

_FINAL = "final_layer.adaLN_modulation.1"


def load_transformer(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> PreciseFlux:
    """Load a transformer tensor by tensor, frozen and in evaluation mode; what ``KEEP_FLOAT32`` names stays float32.

    The file may have original names (Black Forest Labs, ComfyUI) or be in diffusers' layout; ``on_weight`` sees
    original names and the original order of rows either way.

    Raises:
        WeightsError: The file cannot be read, or is no FLUX.1 transformer of Kontext's inputs.
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


def empty_transformer(facts: DitFacts) -> PreciseFlux:
    """Build the transformer on the meta device.

    The class draws random numbers for parameters that are replaced at once; the caller's generator does not notice.
    """
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model: PreciseFlux = PreciseFlux(
            in_channels=facts.in_channels,
            out_channels=facts.out_channels,
            num_layers=facts.num_double,
            num_single_layers=facts.num_single,
            attention_head_dim=facts.head_dim,
            num_attention_heads=facts.dim // facts.head_dim,
            joint_attention_dim=facts.text_dim,
            pooled_projection_dim=facts.pooled_dim,
            guidance_embeds=facts.guided,
            axes_dims_rope=facts.axes,
        )
        waves = Timesteps(num_channels=256, flip_sin_to_cos=True, downscale_freq_shift=0)
        model.time_text_embed = PreciseConditioning(facts.dim, facts.pooled_dim, guided=facts.guided, waves=waves)
        model.norm_out = ShiftScaleNorm(facts.dim, facts.dim, elementwise_affine=False, eps=1e-6)
    equip(model.transformer_blocks, JointAttention())
    equip(model.single_transformer_blocks, MergedAttention())
    model.eval().requires_grad_(False)
    return model


class PreciseFlux(FluxTransformer2DModel):
    """diffusers' blocks under a forward that keeps the time in float32.

    diffusers' own rounds the time to the activations' type before it multiplies by 1000: in bfloat16 the network is
    told noise levels that are off by up to 0.004.
    """

    # Tensors are given by name; what diffusers' own forward takes besides (ControlNets, ...) has no place here.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        timestep: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction (B, S, C) for the tokens of the picture and its control, in that order.

        Args:
            hidden_states: Packed latents (B, S, C).
            encoder_hidden_states: T5's states (B, L, text width), padding included.
            pooled_projections: CLIP's vector (B, pooled width).
            timestep: Noise levels in [0, 1], float32 (B,).
            img_ids: Index, row and column of every image token (S, 3).
            txt_ids: The same of text tokens (L, 3): zeros.
            guidance: The distilled guidance (B,), float32; None for a model without.
        """
        image = self.x_embedder(hidden_states)
        text = self.context_embedder(encoder_hidden_states)
        told = None if guidance is None else guidance.float() * 1000
        conditioning = self.time_text_embed(timestep.float() * 1000, told, pooled_projections).to(image.dtype)
        places = turns(*self.pos_embed(torch.cat([txt_ids, img_ids])))
        words, cells = places.split([len(txt_ids), len(img_ids)])
        for block in self.transformer_blocks:
            text, image = block(image, text, conditioning, (cells, words))
        for block in self.single_transformer_blocks:
            text, image = block(image, text, conditioning, places)
        predicted: Tensor = self.proj_out(self.norm_out(image, conditioning))
        return predicted
