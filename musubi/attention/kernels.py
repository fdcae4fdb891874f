"""The one call that every attention ends in, for the kernels that diffusers knows by name.

Shapes: B batch, S tokens, H heads, E channels of a head, T the tokens of all samples that count, laid in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from torch import Tensor

from musubi.attention.ragged import Ragged

Backend = AttentionBackendName
"""A kernel by the name that diffusers has for it."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    ragged: Ragged | None = None,
    bias: Tensor | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Return softmax(q k' / sqrt(E)) v, (B, S, H, E), in the type of ``value``; padding gets zeros and gives nothing.

    No mask is built. With ``ragged``, all samples go through one call where the kernel takes samples laid in a row, and
    through one call each otherwise, so that a sample's result does not depend on its neighbours.

    Args:
        query: (B, S, H, E); under autocast it may be of a wider type than ``value`` and is then rounded, as torch's own
            kernel does it.
        key: (B, tokens, H, E).
        value: (B, tokens, H, E).
        ragged: Which tokens count, of queries and keys alike; None where all do.
        bias: What to add to the scores, (1, 1, 1, tokens); only for kernels in ``TAKES_BIAS``, without ``ragged``.
        backend: The kernel, torch's own choice by default: never what another model's user set for the whole process.
    """
    kernel = Backend.NATIVE if backend is None else backend
    query, key = query.to(value.dtype), key.to(value.dtype)
    if ragged is None:
        return _dense(query, key, value, bias, kernel)
    assert bias is None, "a bias goes with keys that all samples have"
    parts = tuple(_valid(x, ragged.counts) for x in (query, key, value))
    if kernel.value in _IN_A_ROW:
        rows = tuple(torch.cat(part) for part in parts)
        pieces = _row(rows, ragged, _IN_A_ROW[kernel.value]).split(ragged.counts)
    else:
        pieces = tuple(_dense(q[None], k[None], v[None], None, kernel)[0] for q, k, v in zip(*parts, strict=True))
    return _padded(pieces, query.shape[1])


TAKES_BIAS = frozenset((Backend("native"), Backend("_native_efficient"), Backend("_native_math")))
"""Kernels that add a bias to the scores."""

_FLASH_3 = Backend("_flash_3")
_IN_A_ROW: Mapping[str, str] = MappingProxyType(
    {"flash": "flash_attn_varlen_func", "_flash_3": "flash_attn_3_varlen_func", "sage": "sageattn_varlen"}
)
"""Kernels that take samples in a row, and the function in diffusers' module that does it.

diffusers' own backends for these read lengths off a mask: in every block, waiting for the device for every sample.
"""


def _dense(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, kernel: Backend) -> Tensor:
    if kernel is _FLASH_3:
        # diffusers wraps this one in an operator that has no backward.
        return _output(_function("flash_attn_3_func")(query, key, value))
    result: Tensor = dispatch_attention_fn(query, key, value, attn_mask=bias, backend=kernel)
    return result


def _row(rows: Sequence[Tensor], ragged: Ragged, name: str) -> Tensor:
    """Return the results of all samples in a row, (T, H, E)."""
    query, key, value = rows
    ends, longest = ragged.ends, max(ragged.counts)
    result = _function(name)(
        q=query, k=key, v=value, cu_seqlens_q=ends, cu_seqlens_k=ends, max_seqlen_q=longest, max_seqlen_k=longest
    )
    return _output(result)


def _valid(heads: Tensor, counts: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the tokens of each sample that count, (tokens, H, E)."""
    return tuple(sample[:count] for sample, count in zip(heads.unbind(), counts, strict=True))


def _padded(pieces: Sequence[Tensor], length: int) -> Tensor:
    """Return samples (tokens, H, E) as (B, length, H, E), with zeros after each: one copy."""
    rows = [part for piece in pieces for part in (piece, piece.new_zeros(length - len(piece), *piece.shape[1:]))]
    samples: Tensor = torch.cat(rows).unflatten(0, (len(pieces), length))
    return samples


def _function(name: str) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """Return what diffusers has imported from the kernel's package."""
    found: Callable[..., Tensor | tuple[Tensor, ...]] = getattr(attention_dispatch, name)
    return found


def _output(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the output of a kernel that, in some of its releases, returns the sums of its softmax, too."""
    if isinstance(result, Tensor):
        return result
    return result[0]
