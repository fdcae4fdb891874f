"""How a frozen matrix is kept in fewer bits: the stored tensor, its scales, and the way back."""

from __future__ import annotations

from abc import ABC, abstractmethod

import attrs
import torch
from torch import Tensor

from musubi.memory import fp8, int8, nf4
from musubi.memory.restoring import restore
from musubi.memory.scales import Mode, chunks, scale_shape

BLOCK = 64
"""Inputs of a row that share a scale; part of the formats, so not an option."""


class WeightFormat(ABC):
    """One way to keep a matrix (out, in). Scales are a plain tensor beside it, or None."""

    @abstractmethod
    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what is stored of a floating-point weight, and its scales."""

    @abstractmethod
    def dequantise(self, stored: Tensor, scale: Tensor | None, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return the weight (out, in) in ``dtype``."""

    @abstractmethod
    def empty(
        self, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """Return tensors of the right types and shapes for a weight of ``dtype``, to be filled."""


@attrs.frozen
class FP8(WeightFormat):
    """8-bit floats with a scale for 64 inputs, a row or the whole weight; the scales have the weight's own dtype."""

    mode: Mode = "block"
    kind: torch.dtype = torch.float8_e4m3fn
    block: int = BLOCK
    scale_shape: tuple[int, ...] | None = None
    """The scales' shape where a file says it another way, e.g. (1,) for ``tensor``."""

    scale_dtype: torch.dtype | None = None
    """The scales' type where it is not that of the weight."""

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return fp8.quantise(weight, mode=self.mode, block=self.block, dtype=self.kind)

    def dequantise(self, stored: Tensor, scale: Tensor | None, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        assert scale is not None, "8-bit floats without scales are another format"
        return restore(stored, scale, dtype)

    def empty(self, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        scales = self.scale_shape
        if scales is None:
            scales = scale_shape(shape, mode=self.mode, block=self.block)
        kept = torch.empty(shape, dtype=self.kind, device=device)
        return kept, torch.empty(scales, dtype=self.scale_dtype or dtype, device=device)


@attrs.frozen
class Int8(WeightFormat):
    """Whole numbers from -127 to 127 with a scale for 64 inputs or for a row, in bfloat16."""

    mode: int8.Mode = "block"
    block: int = BLOCK
    scale_shape: tuple[int, ...] | None = None
    scale_dtype: torch.dtype = int8.SCALE

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return int8.quantise(weight, mode=self.mode, block=self.block)

    def dequantise(self, stored: Tensor, scale: Tensor | None, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        assert scale is not None, "whole numbers need scales"
        return restore(stored, scale, dtype)

    def empty(self, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        scales = self.scale_shape
        if scales is None:
            scales = scale_shape(shape, mode=self.mode, block=self.block)
        kept = torch.empty(shape, dtype=torch.int8, device=device)
        return kept, torch.empty(scales, dtype=self.scale_dtype, device=device)


@attrs.frozen
class Cast(WeightFormat):
    """Nothing but another type, rounded to nearest and limited to its range, NaN as 0; without scales."""

    kind: torch.dtype = torch.float8_e4m3fn

    def quantise(self, weight: Tensor) -> tuple[Tensor, None]:
        # Some devices and versions of torch make NaN of what is too large; asked for explicitly, all of them clamp.
        limit = torch.finfo(self.kind).max
        stored = torch.empty(weight.shape, dtype=self.kind, device=weight.device)
        for rows in chunks(weight):
            stored[rows] = weight[rows].nan_to_num(0.0).clamp_(-limit, limit)
        return stored, None

    def dequantise(self, stored: Tensor, scale: Tensor | None, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        return restore(stored, None, dtype)

    def empty(self, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, None]:
        return torch.empty(shape, dtype=self.kind, device=device), None


@attrs.frozen
class NF4(WeightFormat):
    """4 bits a number, after the quantiles of a normal distribution, with a float32 scale for 64 (QLoRA).

    Two numbers share a byte: ``stored`` has shape (out, in / 2), the scales (out, in / 64), so 64 has to divide the
    inputs. bitsandbytes computes both ways.
    """

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return nf4.quantise(weight)

    def dequantise(self, stored: Tensor, scale: Tensor | None, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        assert scale is not None, "4-bit numbers need scales"
        return nf4.dequantise(stored, scale, shape=shape, dtype=dtype)

    def empty(self, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        kept = torch.empty((shape[0], shape[1] // 2), dtype=torch.uint8, device=device)
        return kept, torch.empty((shape[0], shape[1] // nf4.BLOCK), dtype=torch.float32, device=device)
