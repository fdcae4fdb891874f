"""Text refined by a few blocks of its own before the transformer's blocks see it, without a mask.

Shapes: B batch, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from musubi.attention.ragged import ragged


def refined(refiner: nn.Module, text: Tensor, timestep: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the refined text (B, L, D).

    diffusers' own forward of the same module builds a mask of L x L for each sample.

    Args:
        refiner: diffusers' module, its blocks equipped with ``TextAttention``.
        text: The text encoder's states (B, L, text width), shorter ones filled up at the end.
        timestep: What the refiner is told of the noise (B,).
        counts: How many tokens of each sample are text.
    """
    told = refiner.get_submodule("time_text_embed")(timestep, _means(text, counts))
    tokens: Tensor = refiner.get_submodule("proj_in")(text)
    known = ragged(counts, device=text.device)
    for block in refiner.get_submodule("token_refiner.refiner_blocks").children():
        tokens = block(tokens, told, known)
    return tokens


def _means(text: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean token of each sample, (B, text width), summed in float32; of an empty text, its padding."""
    return torch.stack([sample[: max(n, 1)].float().mean(dim=0) for sample, n in zip(text, counts, strict=True)]).to(
        text
    )
