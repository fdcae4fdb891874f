"""Where tokens lie in time and space: rotary tables for frames at any positions, each sample's its own.

Shapes: B batch, F frames, H and W rows and columns of tokens, S tokens, E channels of an attention head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
