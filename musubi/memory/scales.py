"""Which numbers of a weight share a scale, and how weights are worked through in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["block", "channel", "tensor"]
"""What shares a scale: ``block`` consecutive inputs of a row, a row (output channel), or the whole weight."""

CHUNK_ELEMENTS = 1 << 19
"""How many numbers a CPU works on at a time; temporaries stay near 4 MB whatever the size of the weight."""

_ON_DEVICE = 1 << 24
"""The same on an accelerator, which needs much to do at a time."""


def effective_mode(shape: torch.Size | tuple[int, ...], mode: Mode, block: int) -> Mode:
    """Return the mode that a weight gets: ``tensor`` unless it is a matrix, ``channel`` unless ``block`` divides it."""
    if len(shape) != 2:
        return "tensor"
    return "channel" if mode == "block" and shape[1] % block else mode


def scale_shape(shape: torch.Size | tuple[int, ...], *, mode: Mode = "block", block: int = 64) -> tuple[int, ...]:
    """Return the shape of the scales of a weight: (rows, blocks, 1), (rows, 1) or ()."""
    match effective_mode(shape, mode, block):
        case "block":
            return (shape[0], shape[1] // block, 1)
        case "channel":
            return (shape[0], 1)
        case "tensor":
            return ()


def grouped(weight: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return a view whose last axis shares a scale: (rows, blocks, block), (rows, inputs) or (numel,)."""
    if len(shape) == 3:
        return weight.reshape(shape[0], shape[1], -1)
    return weight if shape else weight.reshape(-1)


def chunks(groups: Tensor) -> Iterator[slice]:
    """Yield slices of the first axis that hold as many numbers as are worked on at a time."""
    most = CHUNK_ELEMENTS if groups.device.type == "cpu" else _ON_DEVICE
    rows = max(1, most // max(1, groups[0].numel())) if len(groups) else 1
    return (slice(start, start + rows) for start in range(0, len(groups), rows))


def largest(groups: Tensor) -> Tensor:
    """Return max(|w|) over the last axis, which stays as one of size 1; NaN where there is one."""
    if groups.device.type == "cpu" and groups.dtype in {torch.bfloat16, torch.float16}:
        # The bits of positive floats have the order of the floats; whole numbers are compared four times as fast.
        bits = groups.view(torch.int16).bitwise_and(0x7FFF)
        return bits.amax(dim=-1, keepdim=True).view(groups.dtype)
    return groups.abs().amax(dim=-1, keepdim=True)
