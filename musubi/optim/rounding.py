"""Rounding float32 to bfloat16 up or down at random, so that the mean of many roundings is the number itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@torch.no_grad()
def copy_stochastic(target: Tensor, source: Tensor) -> None:
    """Write float32 ``source`` into bfloat16 ``target`` of the same shape, stochastically rounded.

    A uniform 16-bit number is added to the bits that bfloat16 does not have, then they are cut off: a value goes up
    with the probability of its distance from the number below. What bfloat16 can hold stays as it is, and so does what
    is not finite. Draws from the global generator of the device, as many numbers as there are values.

    Source: the reference's ``adafactor_fused.py``, which does the same but turns infinity and some NaN into numbers.
    """
    target, source = _own_part(target), _own_part(source)
    bits = torch.randint(1 << 16, source.shape, dtype=torch.int32, device=source.device)
    rounded = bits.add_(source.view(torch.int32)).bitwise_and_(-65536).view(torch.float32)
    target.copy_(torch.where(torch.isfinite(source) & torch.isfinite(rounded), rounded, source))


def _own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that is shared out among several."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
