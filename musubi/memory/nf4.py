"""4-bit normal floats (QLoRA, Dettmers et al. 2023) by way of bitsandbytes, as plain tensors.

torchao has the same format as a kind of tensor of its own, which could not be streamed like the others.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from musubi.core.errors import ConfigError, Issue

BLOCK = 64
"""Consecutive numbers that share a scale."""


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (two numbers a byte (out, in / 2), float32 scales (out, in / 64)) of a matrix (out, in).

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    packed, state = library().quantize_4bit(
        weight.contiguous(), blocksize=BLOCK, quant_type="nf4", compress_statistics=False
    )
    return packed.view(len(weight), -1), state.absmax.view(len(weight), -1)


def dequantise(packed: Tensor, scale: Tensor, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return the weight (out, in) in ``dtype``."""
    found = library()
    state: Any = found.QuantState(
        absmax=scale.reshape(-1), shape=torch.Size(shape), blocksize=BLOCK, quant_type="nf4", dtype=dtype
    )
    weight: Tensor = found.dequantize_4bit(packed.view(-1, 1), state)
    return weight


def library() -> ModuleType:
    """Return what computes the format; raises ``ConfigError`` if bitsandbytes is not installed."""
    try:
        from bitsandbytes import functional
    except ImportError as error:
        hint = 'pip install "musubi-trainer[nf4]", or use Int8Scaled()'
        raise ConfigError("NF4", [Issue("", "needs bitsandbytes, which is not installed", hint)]) from error
    return functional
