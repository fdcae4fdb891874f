"""Keeping the norms of deltas within a limit."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from musubi.core.events import WeightNorms
from musubi.networks.layers import AdapterLayer


@torch.no_grad()
def limit_norms(layers: Iterable[AdapterLayer], limit: float) -> WeightNorms:
    """Scale every delta whose Frobenius norm is above ``limit`` back to it, and say what the norms are now.

    Source: the reference's ``scale_weight_norms``, after Kohya's rule of the same name.
    """
    known = tuple(layers)
    norms: list[float] = torch.stack([layer.norm() for layer in known]).tolist() if known else []  # one wait for all
    large = [(layer, norm) for layer, norm in zip(known, norms, strict=True) if norm > limit]
    for layer, norm in large:
        layer.shrink(limit / norm)
    left = [min(norm, limit) for norm in norms]
    return WeightNorms(scaled=len(large), mean=sum(left) / max(1, len(left)), largest=max(left, default=0.0))
