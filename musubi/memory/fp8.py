"""Scaled 8-bit floats: the quantisation of the reference, bit for bit, in row chunks that fit the processor's cache."""

from __future__ import annotations

import torch
from torch import Tensor

from musubi.memory.restoring import restore
from musubi.memory.scales import Mode, chunks, grouped, largest, scale_shape

SMALLEST_SCALE = 1e-8
_EXACT = frozenset((torch.bfloat16, torch.float32))
"""Types whose small scales keep all their digits; float16's do not."""


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
    groups, kept = grouped(weight, shape), grouped(stored, shape)
    if not shape:
        parts = [largest(groups[rows]) for rows in chunks(groups)]
        scale.copy_(_scale(torch.cat(parts).amax() if parts else scale.new_zeros(()), dtype))
    for rows in chunks(groups):
        part = groups[rows]
        if shape:
            scale[rows] = _scale(largest(part), dtype)
        kept[rows] = _divided(part, scale[rows] if shape else scale, dtype)
    return stored, scale


def dequantise(stored: Tensor, scale: Tensor) -> Tensor:
    """Return the weight in the scales' dtype."""
    return restore(stored, scale, scale.dtype)


def _scale(extreme: Tensor, dtype: torch.dtype) -> Tensor:
    return (extreme / torch.finfo(dtype).max).clamp_(min=SMALLEST_SCALE)


def _divided(part: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float32 quotients that are only left to be rounded."""
    used = scale.float()
    quotient = part.to(torch.float32, copy=True).div_(used)
    if scale.dtype in _EXACT and scale.device.type == "cpu" and float(used.amax()) < torch.inf:
        # A scale is finite only if its weights are, and its own rounding lets quotients exceed the largest number by
        # 2^-8 of it at most, which rounds down. Asking an accelerator for this would make the host wait.
        return quotient
    limit = torch.finfo(dtype).max
    return quotient.nan_to_num_(0.0).clamp_(-limit, limit)
