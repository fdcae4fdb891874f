"""Wan's transformer on diffusers' class, with the time path in float32 as its authors have it.

Shape suffixes: B batch, C channels, F latent frames, H and W latent height and width, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_wan import WanTimeTextImageEmbedding, WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from musubi.architecture import Denoiser, Expert, Prepare, StoredWeight, WeightHook
from musubi.architectures.wan.attention import PaddedText, PaddingAttention, SelfAttention, padded_text
from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.fit import expect, expect_variant, legible
from musubi.architectures.wan.place import weights_path
from musubi.architectures.wan.spec import TEXT_LENGTH
from musubi.batch import RAGGED, Batch
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.stored import stored_weights

if TYPE_CHECKING:
    from musubi.architectures.wan.spec import Wan

KEEP_FLOAT32 = (r"time_embedding\..*", r"time_projection\..*", r"(.*\.)?modulation", r"blocks\.\d+\.norm3\..*")
"""Small parameters whose rounding would be a systematic error of the modulation: original names."""


@attrs.frozen(kw_only=True, eq=False)
class WanConditions:
    """What the transformer sees beside the latents: text embeddings (B, L, D), zeros beyond each caption's end.

    L is 512, or less if all captions are shorter: then the last place is zero in every item and stands for itself and
    all places up to 512.
    """

    text: Tensor

    def __len__(self) -> int:
        return len(self.text)


class WanDenoiser(Denoiser[WanConditions]):
    """The transformer of a ``Wan`` spec."""

    float32 = KEEP_FLOAT32

    def __init__(self, spec: Wan) -> None:
        self._spec = spec

    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> WanTransformer3DModel:
        """Load the transformer tensor by tensor, frozen; the time path stays in float32 and so do the rope tables.

        Raises:
            WeightsError: The file cannot be read, or is not of this task.
        """
        with self._open(expert) as checkpoint:
            model = self._build(checkpoint, expert)
            if prepare is not None:
                prepare(model)
            load_into(
                model,
                checkpoint,
                keys=self._spec.keys,
                device=device,
                dtype=dtype,
                on_weight=on_weight,
                keep_float32=KEEP_FLOAT32,
            )
        model.eval().requires_grad_(False)
        return model

    def empty(self, expert: Expert) -> WanTransformer3DModel:
        """Return the transformer on the meta device, sized as the file's header tells."""
        with self._open(expert) as checkpoint:
            return self._build(checkpoint, expert)

    def stored(self, expert: Expert) -> Mapping[str, StoredWeight]:
        """Return the matrices that the file holds in 8 bits."""
        with self._open(expert) as checkpoint:
            return stored_weights(checkpoint, self._spec.keys)

    def entry(self, model: nn.Module, latent_shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of latents and of 512 tokens' embeddings."""
        _, width = model.get_parameter("condition_embedder.text_embedder.linear_1.weight").shape
        return {"latents": tuple(latent_shape), f"{RAGGED}t5": (TEXT_LENGTH, width)}

    def clean(self, batch: Batch) -> Tensor:
        """Return the latents, which the cache holds normalised, as float32 of shape (B, C, F, H, W)."""
        return batch["latents"].float()

    def conditions(self, batch: Batch) -> WanConditions:
        """Return the text embeddings with zeros after them; the transformer attends to this padding, too."""
        return WanConditions(text=pad_text(batch.each("t5")))

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: WanConditions) -> Tensor:
        """Return the predicted ``noise - clean`` as float32 of shape (B, C, F, H, W)."""
        dtype = _compute_type(model)
        timestep_B = sigma.to(x.device, torch.float32) * 1000
        text_BLD = cond.text.to(x.device, dtype)
        predicted: Tensor = model(x.to(dtype), timestep_B, text_BLD, return_dict=False)[0]
        return predicted.float()

    def _open(self, expert: Expert) -> Checkpoint:
        path = self._spec.weight(expert.component).resolve()
        return open_checkpoint(weights_path(path, "transformer"))

    def _build(self, checkpoint: Checkpoint, expert: Expert) -> WanTransformer3DModel:
        found = expect(checkpoint, "dit", component=expert.component)
        with legible(checkpoint):
            facts = DitFacts.of(checkpoint, found)
        expect_variant(checkpoint, found, facts, self._spec.published, self._spec.task)
        return empty_transformer(facts)


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
    model.eval().requires_grad_(False)
    for block in model.blocks:
        own: Any = block.get_submodule("attn1")
        own.set_processor(SelfAttention())
        if not facts.image_keys:
            across: Any = block.get_submodule("attn2")
            across.set_processor(PaddingAttention())
    return model


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
    ) -> tuple[Tensor, Tensor, PaddedText | Tensor, Tensor | None]:
        """Return time embedding, modulation (both float32), text and image embeddings.

        In a model that sees an image, diffusers lays it before the text: a plain tensor of 512 tokens.
        """
        waves = sinusoid(timestep, self.timesteps_proj.num_channels)
        if timestep_seq_len is not None:
            waves = waves.unflatten(0, (-1, timestep_seq_len))
        with torch.autocast(timestep.device.type, enabled=False):
            time = self.time_embedder(waves)
            modulation = self.time_proj(self.act_fn(time))
        text = self.text_embedder(encoder_hidden_states)
        if self.image_embedder is None:
            return time, modulation, padded_text(text), None
        image = encoder_hidden_states_image
        return time, modulation, text, None if image is None else self.get_submodule("image_embedder")(image)


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of ``timestep * 10000 ** (-i / half)``, computed in float64, as float32."""
    exact = timestep.to("cpu" if timestep.device.type == "mps" else timestep.device, torch.float64)
    half = width // 2
    powers = torch.arange(half, dtype=torch.float64, device=exact.device) / half
    angles = exact[:, None] * torch.pow(10000, -powers)
    return torch.cat([angles.cos(), angles.sin()], dim=1).to(timestep.device, torch.float32)


def pad_text(embeddings: Sequence[Tensor]) -> Tensor:
    """Stack embeddings of shape (tokens, D) with zeros after each, as (B, L, D), one place more than the longest has.

    Longer ones than 512 tokens are cut there, as the transformer never sees more.
    """
    length = min(TEXT_LENGTH, max(len(text) for text in embeddings) + 1)
    return torch.stack([functional.pad(text[:length], (0, 0, 0, max(0, length - len(text)))) for text in embeddings])


def _compute_type(model: nn.Module) -> torch.dtype:
    """Return the type of activations, also of a model that is wrapped for several processes."""
    weight: Tensor = getattr(model, "module", model).get_parameter("patch_embedding.weight")
    return weight.dtype
