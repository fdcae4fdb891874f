"""HunyuanVideo's transformer on diffusers' class, with time, guidance and pooled text in float32.

Shapes: B batch, C latent channels, F frames, H and W rows and columns of latent cells, L text tokens, S tokens of the
clip, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from accelerate import init_empty_weights
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings, Timesteps
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoConditionEmbedding,
    HunyuanVideoTransformer3DModel,
)
from torch import Tensor
from torch.nn import functional as F

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.hunyuan_video.facts import PATCH, DitFacts, has_library_names
from musubi.architectures.hunyuan_video.keys import DIT
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into, refuse_quantised

KEEP_FLOAT32 = (r"(time|vector|guidance)_in\..*", r"txt_in\.(t|c)_embedder\..*")
"""Small layers whose rounding would be an error that all tokens share: original names."""

_FINAL = "final_layer.adaLN_modulation.1."


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
        WeightsError: The file cannot be read, is quantised already, or is no HunyuanVideo transformer.
    """
    refuse_quantised(checkpoint)
    model = empty_transformer(DitFacts.of(checkpoint))
    if prepare is not None:
        prepare(model)
    load_into(
        model,
        checkpoint,
        keys=DIT,
        device=device,
        dtype=dtype,
        on_weight=_in_original_order(on_weight) if has_library_names(checkpoint) else on_weight,
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
        model.time_text_embed = PreciseConditioning(facts.dim, facts.pooled_dim, guided=facts.guided)
        model.context_embedder.time_text_embed = PreciseTextTime(facts.dim, facts.text_dim)
        model.norm_out = ShiftScaleNorm(facts.dim, facts.dim, elementwise_affine=False, eps=1e-6)
    model.eval().requires_grad_(False)
    return model


class PreciseHunyuanVideo(HunyuanVideoTransformer3DModel):
    """diffusers' blocks under a forward that keeps the time in float32 and takes no mask where all text is valid.

    A mask, even one that masks nothing, keeps attention from its fast kernels.
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
        rotary = self.rope(hidden_states)
        tokens = self.x_embedder(hidden_states)
        conditioning = self.time_text_embed(timestep, guidance, pooled_projections).to(tokens.dtype)
        text = self.context_embedder(encoder_hidden_states, timestep, encoder_attention_mask)
        mask = None
        if encoder_attention_mask is not None:
            mask = F.pad(encoder_attention_mask.bool(), (tokens.shape[1], 0), value=True)[:, None, None]
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            tokens, text = block(tokens, text, conditioning, mask, rotary)
        predicted: Tensor = self.proj_out(self.norm_out(tokens, conditioning))
        return unpatched(predicted, hidden_states.shape[2:])


def unpatched(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return (B, C, F, H, W) of tokens (B, S, 4 C): channels first, then the rows and columns of a patch."""
    frames, height, width = size
    patches = tokens.reshape(len(tokens), frames, height // PATCH[1], width // PATCH[2], -1, PATCH[1], PATCH[2])
    return patches.permute(0, 4, 1, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


class PreciseConditioning(HunyuanVideoConditionEmbedding):
    """Embed time, guidance and pooled text in float32 whatever the model's type; under autocast, too."""

    def __init__(self, dim: int, pooled_dim: int, *, guided: bool) -> None:
        super().__init__(dim, pooled_dim, guidance_embeds=guided)
        self.time_proj = Sinusoid()

    def forward(self, timestep: Tensor, guidance: Tensor | None, pooled_projection: Tensor) -> Tensor:  # type: ignore[override]
        """Return (B, D) in float32."""
        with torch.autocast(timestep.device.type, enabled=False):
            total: Tensor = self.timestep_embedder(self.time_proj(timestep.float()))
            if self.guidance_embedder is not None and guidance is not None:
                total = total + self.guidance_embedder(self.time_proj(guidance.float()))
            pooled: Tensor = self.text_embedder(pooled_projection.float())
        return total + pooled


class PreciseTextTime(CombinedTimestepTextProjEmbeddings):
    """Embed time and mean text for the token refiner in float32; only the result has the text's type."""

    def __init__(self, dim: int, text_dim: int) -> None:
        super().__init__(dim, text_dim)  # type: ignore[no-untyped-call]
        self.time_proj = Sinusoid()

    def forward(self, timestep: Tensor, pooled_projection: Tensor) -> Tensor:
        """Return (B, D) in the type of ``pooled_projection``."""
        with torch.autocast(timestep.device.type, enabled=False):
            time: Tensor = self.timestep_embedder(self.time_proj(timestep.float()))
            total: Tensor = time + self.text_embedder(pooled_projection.float())
        return total.to(pooled_projection.dtype)


class Sinusoid(Timesteps):
    """Turn times into cosines and sines of 128 frequencies that are the same on every machine.

    ``torch.exp`` in float32 differs in the last bit between processors, and guidance of a thousand and more multiplies
    that. Here the exponents are float32, as the models were trained with, and the exponential is rounded once.
    """

    def __init__(self) -> None:
        super().__init__(num_channels=256, flip_sin_to_cos=True, downscale_freq_shift=0)

    def frequencies(self, device: torch.device) -> Tensor:
        """Return the frequencies (128,), from 1 down to nearly 1 / 10000."""
        # float64 does not exist on Apple's GPUs: these few numbers are computed on the host, wherever the model is
        exponents = torch.arange(128, dtype=torch.float32, device="cpu") * -math.log(10000) / 128
        return exponents.double().exp().float().to(device)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Return (B, 256) in float32, cosines first."""
        phases = timesteps.float()[:, None] * self.frequencies(timesteps.device)
        return torch.cat([phases.cos(), phases.sin()], dim=-1)


class ShiftScaleNorm(AdaLayerNormContinuous):
    """The last normalisation with rows in the original's order, shift before scale; diffusers has scale first.

    So base weights, adapters and merges are under their original names in every respect.
    """

    def forward(self, x: Tensor, conditioning_embedding: Tensor) -> Tensor:
        """Return ``norm(x) (1 + scale) + shift`` of shape (B, S, D)."""
        shift, scale = self.linear(self.silu(conditioning_embedding).to(x.dtype)).chunk(2, dim=1)
        modulated: Tensor = self.norm(x) * (1 + scale)[:, None] + shift[:, None]
        return modulated


def _in_original_order(on_weight: WeightHook | None) -> WeightHook:
    """Return a hook that puts shift before scale, as the original has it, before ``on_weight`` sees the tensor."""

    def hook(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
        ordered = torch.cat(tensor.chunk(2)[::-1]) if name.startswith(_FINAL) else tensor
        return ordered if on_weight is None else on_weight(name, ordered)

    return hook
