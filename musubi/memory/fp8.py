"""Scaled 8-bit floats: the quantisation of the reference, bit for bit, in row chunks that fit the processor's cache."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mode = Literal["block", "channel", "tensor"]
"""What shares a scale: ``block`` consecutive inputs of a row, a row (output channel), or the whole weight."""

CHUNK_ELEMENTS = 1 << 18
"""How many elements are quantised at a time; temporaries stay near 4 MB whatever the size of the weight."""

SMALLEST_SCALE = 1e-8


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


def quantise(
    weight: Tensor, *, mode: Mode = "block", block: int = 64, dtype: torch.dtype = torch.float8_e4m3fn
) -> tuple[Tensor, Tensor]:
    """Return (weight in 8 bits, scales in the weight's own dtype).

    scale = max(|w|) / largest, rounded to the weight's dtype and at least 1e-8; q = w / scale in float32, NaN becomes
    0, clamped to the format's range and rounded to nearest even. The bits are those of musubi-tuner v0.2.13,
    ``fp8_optimization_utils.quantize_weight``.
    """
    shape = scale_shape(weight.shape, mode=mode, block=block)
    stored = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    scale = torch.empty(shape, dtype=weight.dtype, device=weight.device)
    if not shape:
        largest = weight.abs().amax() if weight.numel() else weight.new_zeros(())
        scale.copy_(_scale(largest, dtype))
    flat, flat_stored = _grouped(weight, shape), _grouped(stored, shape)
    rows = max(1, CHUNK_ELEMENTS // max(1, flat[0].numel())) if len(flat) else 1
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows]
        if shape:
            scale[start : start + rows] = _scale(part.abs().amax(dim=-1, keepdim=True), dtype)
        used = scale[start : start + rows] if shape else scale
        flat_stored[start : start + rows] = _round(part, used.float(), dtype)
    return stored, scale


def dequantise(stored: Tensor, scale: Tensor) -> Tensor:
    """Return the weight in the scales' dtype."""
    return (_grouped(stored, scale.shape).to(scale.dtype) * scale).view(stored.shape)


def _grouped(weight: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return a view whose last axis shares a scale: (rows, blocks, block), (rows, inputs) or (numel,)."""
    if len(shape) == 3:
        return weight.reshape(shape[0], shape[1], -1)
    return weight if shape else weight.reshape(-1)


def _scale(largest: Tensor, dtype: torch.dtype) -> Tensor:
    return (largest / torch.finfo(dtype).max).clamp_(min=SMALLEST_SCALE)


def _round(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    limit = torch.finfo(dtype).max
    return (weight.float() / scale).nan_to_num_(0.0).clamp_(-limit, limit).to(dtype)
