"""How diffusers' blocks attend over a picture's or clip's tokens and the text's: processors for its attention modules.

All lay the text last, so that padding is at the end. What diffusers calls ``attention_mask`` is a ``Ragged`` or None.
Shapes: B batch, S tokens of the picture or clip, L text tokens, D width, H heads, E channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from musubi.attention.kernels import Backend, attend
from musubi.attention.ragged import Ragged
from musubi.attention.rotary import rotated


class Attentive(Protocol):
    """What the processors use of diffusers' attention modules."""

    heads: int

    def get_submodule(self, target: str) -> nn.Module: ...


class JointAttention:
    """Attention of a block with weights of their own for picture and text; both attend to both."""

    _attention_backend: Backend | None = None

    # Their names and order are diffusers'.
    def __call__(  # noqa: PLR0917
        self,
        attn: Attentive,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Ragged | None = None,
        image_rotary_emb: tuple[Tensor, Tensor | None] | None = None,
        encoder_hidden_states_mask: Ragged | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what picture (B, S, D) and text (B, L, D) take from both.

        Args:
            attn: diffusers' module.
            hidden_states: The picture's tokens (B, S, D).
            encoder_hidden_states: The text's (B, L, D).
            attention_mask: Which tokens count, of S + L.
            image_rotary_emb: The turns of the picture's tokens and of the text's, None for those that have no place.
            encoder_hidden_states_mask: ``attention_mask`` by the name that some blocks give it.
        """
        places, words = image_rotary_emb or (None, None)
        picture = _heads(attn, hidden_states, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), places)
        layers = ("add_q_proj", "add_k_proj", "add_v_proj")
        text = _heads(attn, encoder_hidden_states, layers, ("norm_added_q", "norm_added_k"), words)
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(picture, text, strict=True))
        known = attention_mask or encoder_hidden_states_mask
        mixed = _mixed(query, key, value, known, self._attention_backend)
        own, added = mixed.split([hidden_states.shape[1], encoder_hidden_states.shape[1]], dim=1)
        return attn.get_submodule("to_out.0")(own), attn.get_submodule("to_add_out")(added)


class MergedAttention:
    """Attention of a block with one set of weights for picture and text; what follows it is the block's own."""

    _attention_backend: Backend | None = None

    def __call__(
        self,
        attn: Attentive,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Ragged | None = None,
        image_rotary_emb: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return what all tokens take from all: picture and text if they come apart, else (B, S + L, D) as they came.

        ``image_rotary_emb`` has a turn for every token.
        """
        text = encoder_hidden_states
        tokens = hidden_states if text is None else torch.cat([hidden_states, text], dim=1)
        heads = _heads(attn, tokens, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), image_rotary_emb)
        mixed = _mixed(*heads, attention_mask, self._attention_backend)
        if text is None:
            return mixed
        own, added = mixed.split([hidden_states.shape[1], text.shape[1]], dim=1)
        return own, added


class TextAttention:
    """Attention of a block that sees only text, without places."""

    _attention_backend: Backend | None = None

    def __call__(
        self,
        attn: Attentive,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: Ragged | None = None,
    ) -> Tensor:
        """Return what the tokens (B, L, D) take from one another."""
        heads = _heads(attn, hidden_states, ("to_q", "to_k", "to_v"))
        mixed: Tensor = attn.get_submodule("to_out.0")(_mixed(*heads, attention_mask, self._attention_backend))
        return mixed


def equip(blocks: Iterable[nn.Module], processor: object) -> None:
    """Let the ``attn`` of every block attend by one processor."""
    for block in blocks:
        attention: Any = block.get_submodule("attn")
        attention.set_processor(processor)


def _heads(
    attn: Attentive,
    tokens: Tensor,
    layers: tuple[str, str, str],
    norms: tuple[str, str] | None = None,
    turn: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries and keys, normalised and turned, and values, (B, tokens, H, E)."""
    query, key, value = (attn.get_submodule(name)(tokens).unflatten(2, (attn.heads, -1)) for name in layers)
    if norms is not None:
        query, key = attn.get_submodule(norms[0])(query), attn.get_submodule(norms[1])(key)
    if turn is not None:
        query, key = rotated(query, turn), rotated(key, turn)
    return query, key, value


def _mixed(query: Tensor, key: Tensor, value: Tensor, known: Ragged | None, backend: Backend | None) -> Tensor:
    """Return the heads' results side by side, (B, tokens, D), in the type of the queries."""
    return attend(query, key, value, ragged=known, backend=backend).flatten(2).to(query.dtype)
