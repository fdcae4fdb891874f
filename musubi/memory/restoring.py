"""The way back from stored 8-bit numbers to floats, which every use of a quantised matrix takes."""

from __future__ import annotations

import torch
from torch import Tensor

from musubi.memory.scales import chunks, grouped


def restore(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return 8-bit numbers times their scales, rounded once, to ``dtype``; nothing else of the weight's size is made.

    On an accelerator that is a cast and a product in place, which a compiler makes one kernel of. A CPU works in pieces
    that stay in its cache.
    """
    if stored.device.type != "cpu" or torch.compiler.is_compiling():
        # All of these types hold every 8-bit number exactly.
        exact = stored.to(dtype)
        return exact if scale is None else grouped(exact, scale.shape).mul_(_aligned(scale)).view(stored.shape)
    shape = () if scale is None else scale.shape
    restored = torch.empty(stored.shape, dtype=dtype)
    groups, full = grouped(stored, shape), grouped(restored, shape)
    for rows in chunks(groups):
        used = scale[rows] if scale is not None and scale.ndim > 1 else scale
        full[rows] = _product(groups[rows], used, torch.promote_types(dtype, torch.float32))
    return restored


def _product(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    exact, power = _widened(stored)
    if scale is None:
        return exact if power == 1 else exact.mul_(power)
    return exact.to(dtype).mul_(scale.to(dtype) * power)


def _widened(stored: Tensor) -> tuple[Tensor, float]:
    """Return 8-bit numbers as float32, and the power of two by which these are too small.

    The bits of 8-bit floats are put in their places in float16, which holds each of them: ten times as fast on a CPU
    as torch's cast. The exponent of e4m3 is off by 8 then. NaN, which no weight is, would come out as 480.
    """
    if stored.dtype == torch.float8_e4m3fn:
        bits = stored.view(torch.int8).to(torch.int16)
        return bits.bitwise_left_shift_(7).bitwise_and_(~0x4000).view(torch.float16).float(), 256.0
    if stored.dtype == torch.float8_e5m2:
        bits = stored.view(torch.int8).to(torch.int16)
        return bits.bitwise_left_shift_(8).view(torch.float16).float(), 1.0
    return stored.float(), 1.0


def _aligned(scale: Tensor) -> Tensor:
    """Return scales of a type that counts: a tensor without axes would be rounded to the type of the others."""
    return scale if scale.ndim else scale.reshape(1)
