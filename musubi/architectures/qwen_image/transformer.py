"""Qwen-Image's transformer on diffusers' class, with the time path in float32.

Shapes: B batch, S image tokens (the picture's, then each control's), L text tokens, C channels of a token, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import prod

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel, QwenTimestepProjEmbeddings
from torch import Tensor

from musubi.architecture import Prepare, WeightHook
from musubi.architectures.qwen_image.facts import DitFacts
from musubi.architectures.qwen_image.keys import DIT, renumbered
from musubi.architectures.qwen_image.tasks import MARK
from musubi.attention.ragged import cropped, ragged
from musubi.attention.streams import JointAttention, equip
from musubi.keymap import KeyMap
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into

logger = logging.getLogger(__name__)

KEEP_FLOAT32 = (r"time_text_embed\..*",)
"""Small layers whose rounding would be an error that all tokens share."""


def load_transformer(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
    facts: DitFacts | None = None,
) -> PreciseQwenImage:
    """Load a transformer tensor by tensor, frozen and in evaluation mode; the time path stays float32.

    A pruned file's blocks are numbered anew from 0, for ``on_weight``, too. ``facts`` are those of the file unless
    given: more may be known of it than it says.

    Raises:
        WeightsError: The file cannot be read, or is no transformer of these models.
    """
    facts = facts or DitFacts.of(checkpoint)
    keys = renumbered(facts.blocks) if facts.pruned else DIT
    if facts.pruned:
        logger.warning("%s has %d blocks with gaps between: numbered anew", checkpoint.label, len(facts.blocks))
    model = empty_transformer(facts)
    if prepare is not None:
        prepare(model)
    load_into(
        model,
        checkpoint,
        keys=keys,
        device=device,
        dtype=dtype,
        on_weight=_with_new_numbers(on_weight, keys) if on_weight and facts.pruned else on_weight,
        keep_float32=KEEP_FLOAT32,
        ignore=(MARK,),
    )
    model.eval().requires_grad_(False)
    return model


def empty_transformer(facts: DitFacts) -> PreciseQwenImage:
    """Build the transformer on the meta device; its rope tables, which are no buffers, are real.

    The class draws random numbers for parameters that are replaced at once; the caller's generator does not notice.
    """
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model: PreciseQwenImage = PreciseQwenImage(
            in_channels=facts.in_channels,
            out_channels=facts.out_channels,
            num_layers=len(facts.blocks),
            attention_head_dim=facts.head_dim,
            num_attention_heads=facts.dim // facts.head_dim,
            joint_attention_dim=facts.text_dim,
            axes_dims_rope=facts.axes,
            zero_cond_t=facts.zero_time,
            use_additional_t_cond=facts.layered,
            use_layer3d_rope=facts.layered,
        )
        model.time_text_embed = PreciseTime(facts.dim, facts.layered)  # type: ignore[no-untyped-call]
    equip(model.transformer_blocks, JointAttention())
    model.eval().requires_grad_(False)
    return model


class PreciseQwenImage(QwenImageTransformer2DModel):
    """diffusers' blocks under a forward that keeps the time in float32 and attends to no padding.

    diffusers' own (and the reference) rounds the time to the activations' type: in bfloat16, steps of 4 in 1000. It has
    the text before the picture, where kernels that take lengths cannot leave out its padding.
    """

    # Tensors are given by name; what diffusers' own forward takes besides (ControlNets, ...) has no place here.
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        img_shapes: Sequence[tuple[int, int, int]],
        encoder_hidden_states_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction (B, S, C) for the tokens of the picture and its controls, in that order.

        Args:
            hidden_states: Packed latents (B, S, C).
            encoder_hidden_states: The language model's states (B, L, text width), zeros after shorter ones.
            timestep: Noise levels in [0, 1], float32 (B,).
            img_shapes: Frames (1), rows and columns of tokens of the picture, or of each layer, and of each control;
                shared by the batch.
            encoder_hidden_states_mask: True (B, L) where there is text; None where all is.
        """
        image = self.img_in(hidden_states)
        own, conditioning, shown = self._told(timestep, img_shapes, image)
        words, counts = cropped(encoder_hidden_states, encoder_hidden_states_mask)
        text = self.txt_in(self.txt_norm(words))
        known = ragged(counts, more=image.shape[1], device=image.device)
        waves = self.pos_embed([list(img_shapes)], max_txt_seq_len=text.shape[1], device=image.device)
        places = tuple(torch.view_as_real(wave)[:, None] for wave in waves)
        for block in self.transformer_blocks:
            text, image = block(image, text, known, conditioning, places, None, shown)
        predicted: Tensor = self.proj_out(self.norm_out(image, own))
        return predicted

    def _told(
        self, timestep: Tensor, shapes: Sequence[tuple[int, int, int]], image: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the embedded time (B, D), that of all blocks, and which tokens (1, S) are told no noise.

        Where pictures to start from are told none, that of all blocks has the embedded time 0 behind it, (2 B, D).
        """
        own = self.time_text_embed(timestep).to(image.dtype)
        if not self.zero_cond_t:
            return own, own, None
        still = self.time_text_embed(torch.zeros_like(timestep)).to(image.dtype)
        shown = torch.arange(image.shape[1], device=image.device)[None] >= prod(shapes[0])
        return own, torch.cat([own, still]), shown


class PreciseTime(QwenTimestepProjEmbeddings):
    """Embed the time in float32 whatever the model's type; under autocast, too."""

    def forward(self, timestep: Tensor) -> Tensor:  # type: ignore[override]
        """Return (B, D) in float32 for ``timestep`` in [0, 1], which the network is told times 1000."""
        with torch.autocast(timestep.device.type, enabled=False):
            embedded: Tensor = self.timestep_embedder(self.time_proj(timestep.float()))
            if self.use_additional_t_cond:
                # Of two learned additions the first: pictures with transparency.
                embedded = embedded + self.addition_t_embedding.weight[0].float()
            return embedded


def _with_new_numbers(on_weight: WeightHook, keys: KeyMap) -> WeightHook:
    return lambda name, tensor: on_weight(keys.to_library(name)[0].name, tensor)
