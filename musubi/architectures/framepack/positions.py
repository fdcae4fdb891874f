"""Where tokens lie in time and space: rotary tables for frames at any positions, each sample's its own.

Shapes: B batch, F frames, H and W rows and columns of tokens, S tokens, E channels of an attention head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

Tables = tuple[Tensor, Tensor]
"""Cosines and sines (B, S, E), float32."""

_THETA = 256.0


def rotary_tables(frames: Tensor, size: tuple[int, int], axes: Sequence[int], *, pooled: int = 1) -> Tables:
    """Return the tables of tokens at these positions.

    Args:
        frames: Positions in time (B, F).
        size: Rows and columns of tokens in a frame.
        axes: Channels for frame, row and column.
        pooled: Tokens of the history are this many times larger along each axis: their tables are means over cubes, at
            the far ends of copies of the last entries (as in the authors' code).
    """
    samples = [_grid(positions, size, axes) for positions in frames.float()]
    cos, sin = (torch.stack(tables) for tables in zip(*samples, strict=True))
    return _pooled(cos, pooled), _pooled(sin, pooled)


def _grid(frames: Tensor, size: tuple[int, int], axes: Sequence[int]) -> Tables:
    """Return the tables of one sample, (F, H, W, E)."""
    rows, columns = (torch.arange(count, dtype=torch.float32, device=frames.device) for count in size)
    places = torch.meshgrid(frames, rows, columns, indexing="ij")
    tables = [_table(place.reshape(-1), channels) for channels, place in zip(axes, places, strict=True)]
    cos, sin = (torch.cat(parts, dim=1).unflatten(0, places[0].shape) for parts in zip(*tables, strict=True))
    return cos, sin


def _table(places: Tensor, channels: int) -> Tables:
    """Return (S, channels) for places (S,) along one axis, every entry twice."""
    exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=places.device) / channels
    phases = torch.outer(places, 1.0 / _THETA**exponents).repeat_interleave(2, dim=1)
    return phases.cos(), phases.sin()


def _pooled(table: Tensor, cube: int) -> Tensor:
    """Return (B, S, E) of (B, F, H, W, E)."""
    if cube == 1:
        return table.flatten(1, 3)
    channels_first = padded(table.movedim(-1, 1), (cube, cube, cube))
    return F.avg_pool3d(channels_first, cube).flatten(2).transpose(1, 2)


def padded(volume: Tensor, kernel: Sequence[int]) -> Tensor:
    """Return (B, C, F, H, W) with the last frames, rows and columns repeated up to multiples of ``kernel``."""
    missing = [-size % step for size, step in zip(volume.shape[-3:], kernel, strict=True)]
    frames, height, width = missing
    return F.pad(volume, (0, width, 0, height, 0, frames), mode="replicate")


class PlacedAttention:
    """diffusers' attention of HunyuanVideo's blocks, with rotary tables of each sample."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Tables | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what the tokens of the clip and those of the text take from all of them."""
        text = encoder_hidden_states.shape[1]
        double = attn.add_q_proj is not None
        tokens = hidden_states if double else torch.cat([hidden_states, encoder_hidden_states], dim=1)
        query, key, value = _heads(attn, tokens, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        if image_rotary_emb is not None:
            query, key = rotated(query, image_rotary_emb), rotated(key, image_rotary_emb)
        if double:
            layers = ("add_q_proj", "add_k_proj", "add_v_proj")
            added = _heads(attn, encoder_hidden_states, layers, ("norm_added_q", "norm_added_k"))
            query, key, value = (torch.cat(pair, dim=1) for pair in zip((query, key, value), added, strict=True))
        mixed = dispatch_attention_fn(query, key, value, attn_mask=attention_mask).flatten(2, 3).to(query.dtype)
        clip, words = mixed[:, :-text], mixed[:, -text:]
        if not double:
            return clip, words
        return attn.get_submodule("to_out.0")(clip), attn.get_submodule("to_add_out")(words)


def rotated(heads: Tensor, tables: Tables) -> Tensor:
    """Return (B, S, heads, E) with the first tokens turned, as many as the tables have; the rest is text."""
    cos, sin = (table[:, :, None] for table in tables)
    placed, rest = heads.split([cos.shape[1], heads.shape[1] - cos.shape[1]], dim=1)
    real, imaginary = placed.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(3)
    moved = (placed.float() * cos + turned.float() * sin).to(heads.dtype)
    return torch.cat([moved, rest], dim=1)


def _heads(
    attn: Attention, tokens: Tensor, layers: Sequence[str], norms: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised queries and keys, and values, (B, S, heads, E)."""
    query, key, value = (attn.get_submodule(name)(tokens).unflatten(2, (attn.heads, -1)) for name in layers)
    return attn.get_submodule(norms[0])(query), attn.get_submodule(norms[1])(key), value
