"""Latents into tokens, and tokens back into latents."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def unpatched(tokens: Tensor, size: Sequence[int], patch: tuple[int, int, int]) -> Tensor:
    """Return latents (B, C, *size) of tokens (B, S, C * cells of a patch), each of which has its channels first.

    Args:
        tokens: One for each patch, by frames, then rows, then columns.
        size: Latent frames, height and width.
        patch: Latent cells (frames, height, width) that make one token.
    """
    grid = [side // step for side, step in zip(size, patch, strict=True)]
    patches = tokens.reshape(len(tokens), *grid, -1, *patch)
    return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def patched(latents: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Return tokens (B, S, C * cells of a patch) of latents (B, C, frames, height, width); ``unpatched`` undoes it."""
    batch, channels, *sides = latents.shape
    frames, height, width = (side // step for side, step in zip(sides, patch, strict=True))
    cells = latents.reshape(batch, channels, frames, patch[0], height, patch[1], width, patch[2])
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
