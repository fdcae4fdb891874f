"""Wan's attention: over its own tokens, and to a text whose padding counts.

Shapes: B batch, S tokens of the clip, L text tokens, D width, H heads, E channels of a head.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor

from musubi.architectures.wan.spec import TEXT_LENGTH
from musubi.attention.kernels import TAKES_BIAS, Backend, attend
from musubi.attention.rotary import rotated, turns


class SelfAttention(WanAttnProcessor):
    """Self-attention with the rotation of queries and keys as one complex product."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the attention's output (B, S, D)."""
        assert encoder_hidden_states is None, "only self-attention rotates"
        assert rotary_emb is not None, "only self-attention rotates"
        assert attention_mask is None, "all tokens of a clip count"
        cos, sin = (table.squeeze(2) for table in rotary_emb)
        places = turns(cos, sin)
        query, key = (
            rotated(norm(linear(hidden_states)).unflatten(2, (attn.heads, -1)), places)
            for norm, linear in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
        )
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        return _output(attn, query, attend(query, key, value, backend=self._attention_backend))


class PaddedText(NamedTuple):
    """Embedded text (B, L, D) whose last token stands for itself and for all that is missing from 512, and an image.

    ``bias`` (1, 1, 1, L and some more) is what to add to the scores: zeros, and then for a few copies of the last token
    the logarithm of how many tokens each stands for. None where all 512 tokens are there. ``image`` are embedded image
    tokens (B, tokens, D), which have keys and values of their own; None where none is seen.
    """

    states: Tensor
    bias: Tensor | None
    image: Tensor | None = None


def padded_text(text: Tensor, image: Tensor | None = None) -> PaddedText:
    """Return embedded text (B, L, D), whose last token is padding unless L is 512, with what the rest counts."""
    length = text.shape[1]
    if length >= TEXT_LENGTH:
        return PaddedText(text, None, image)
    scores = [0.0] * (length - 1) + [*counted(TEXT_LENGTH - length + 1, text.dtype)]
    return PaddedText(text, text.new_tensor(scores)[None, None, None], image)


def counted(number: int, dtype: torch.dtype) -> tuple[float, ...]:
    """Return numbers that ``dtype`` has, whose exponentials sum to ``number`` within a millionth of it.

    In float32 the logarithm is one. In bfloat16 it is off by up to 0.4 %, which all padding would weigh too much or too
    little; so it is rounded down, and what is missing becomes a further number.
    """
    found: list[float] = []
    missing = float(number)
    while missing > 1e-6 * number:
        found.append(_below(math.log(missing), dtype))
        missing -= math.exp(found[-1])
    return tuple(found)


def _below(value: float, dtype: torch.dtype) -> float:
    """Return the largest number of as many binary digits as ``dtype`` has that is not above ``value``."""
    digits = 1 - round(math.log2(torch.finfo(dtype).eps))
    fraction, exponent = math.frexp(value)
    return math.ldexp(math.floor(math.ldexp(fraction, digits)), exponent - digits)


class PaddingAttention(WanAttnProcessor):
    """Attend to the last text token as if it stood there as often as is missing from 512 tokens.

    All padding has the same keys and values, so adding the logarithm of its number to one score is the same softmax,
    and a short caption costs what it is long. Kernels that add nothing to scores get that many copies of the last
    token's key and value. (Dropout in adapters of ``k`` and ``v`` then drops alike for all of it.)

    Image tokens are attended to apart, with keys and values of their own; what both give is added. All of them are
    image tokens, be it 257 of one picture or 514 of two, as Wan's authors have it, and none without a picture.
    (musubi-tuner always takes the first 257 tokens for the image, a second picture or words after them for text.)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    # The text is more than a tensor: what its padding counts is worked out once, not in every block.
    def __call__(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: PaddedText | Tensor,
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> Tensor:
        """Return the attention's output (B, S, D)."""
        if isinstance(encoder_hidden_states, Tensor):
            encoder_hidden_states = padded_text(encoder_hidden_states)
        text, bias, image = encoder_hidden_states
        backend: Backend | None = self._attention_backend
        adds = backend is None or backend in TAKES_BIAS
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(text)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(text).unflatten(2, (attn.heads, -1))
        if bias is not None:
            copies = (bias.shape[-1] if adds else TEXT_LENGTH) - text.shape[1]
            key, value = _followed(key, copies), _followed(value, copies)
        mixed = attend(query, key, value, bias=bias if adds else None, backend=backend)
        if image is not None:
            mixed = mixed + attend(query, *_image_keys(attn, image), backend=backend)
        return _output(attn, query, mixed)


def _image_keys(attn: WanAttention, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values (B, tokens, H, E) of image tokens (B, tokens, D)."""
    assert attn.add_k_proj is not None, "only a model of images is shown one"
    assert attn.add_v_proj is not None, "only a model of images is shown one"
    key, value = attn.norm_added_k(attn.add_k_proj(image)), attn.add_v_proj(image)
    return key.unflatten(2, (attn.heads, -1)), value.unflatten(2, (attn.heads, -1))


def _followed(heads: Tensor, copies: int) -> Tensor:
    """Return (B, L, H, E) with copies of the last token after it."""
    return torch.cat([heads, heads[:, -1:].expand(-1, copies, -1, -1)], dim=1)


def _output(attn: WanAttention, query: Tensor, mixed: Tensor) -> Tensor:
    """Return (B, S, D) of the heads' results (B, S, H, E)."""
    result: Tensor = attn.to_out[1](attn.to_out[0](mixed.flatten(2, 3).type_as(query)))
    return result
