"""Weights of 8 bits as the numbers they stand for: what is stored, times its scales, in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from musubi.weights.checkpoint import Checkpoint
from musubi.weights.companions import Scale

_AT_ONCE = 1 << 20
"""Numbers that are computed at a time, so that no whole second copy of a weight exists."""


def read_scale(checkpoint: Checkpoint, scale: Scale) -> Tensor:
    """Return scales as the file has them, of shape (), (rows, 1) or (rows, blocks, 1)."""
    return checkpoint.read(scale.name).reshape(scale.form)


def cut(scale: Tensor, rows: slice) -> Tensor:
    """Return the scales of some rows; one that is common to all belongs to each."""
    return scale[rows] if scale.ndim else scale


def lift(checkpoint: Checkpoint, name: str, scale: Tensor, target: Tensor, *, start: int = 0) -> None:
    """Fill a contiguous tensor of any device with the rows of a weight that begin at ``start``, times their scales."""
    rows = max(1, _AT_ONCE // max(1, math.prod(target.shape[1:])))
    buffer = torch.empty((min(rows, len(target)), *target.shape[1:]), dtype=checkpoint.dtype(name))
    scale = scale.to(target.device, torch.float32)
    for first in range(0, len(target), rows):
        part = target[first : first + rows]
        stored = buffer[: len(part)]
        checkpoint.copy(name, stored, start=start + first)
        begin = start + first
        part.copy_(scaled(stored.to(part.device), cut(scale, slice(begin, begin + len(part)))))


def scaled(stored: Tensor, scale: Tensor) -> Tensor:
    """Return stored numbers times their scales, in float32."""
    full = stored.to(torch.float32, copy=True)
    grouped = full.view(*scale.shape[:-1], -1) if scale.ndim else full
    return grouped.mul_(scale).view(stored.shape)
