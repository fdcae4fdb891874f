"""Tensors laid out in one flat buffer of bytes, so that a block is one copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs
import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes; where a tensor may begin inside a flat buffer: what CUDA's own allocator gives, and fit for any type."""


@attrs.frozen
class Place:
    """Where a tensor lies in a flat buffer."""

    shape: torch.Size
    dtype: torch.dtype
    start: int
    nbytes: int


@attrs.frozen
class Packing:
    """The places of a block's tensors in a buffer of ``size`` bytes; equal ones can share buffers."""

    places: tuple[Place, ...]
    size: int

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Self:
        """Return the closest packing of tensors in their order."""
        starts, end = [], 0
        for tensor in tensors:
            starts.append(end)
            end += aligned(tensor.nbytes, ALIGNMENT)
        return cls.at(tensors, starts, end)

    @classmethod
    def at(cls, tensors: Sequence[Tensor], starts: Sequence[int], size: int) -> Self:
        """Return the packing of tensors that begin at these bytes."""
        placed = zip(tensors, starts, strict=True)
        return cls(tuple(Place(tensor.shape, tensor.dtype, start, tensor.nbytes) for tensor, start in placed), size)

    @property
    def nbytes(self) -> int:
        """How many bytes the tensors have themselves."""
        return sum(place.nbytes for place in self.places)

    def views(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors as views of a flat buffer."""
        return tuple(
            flat[place.start : place.start + place.nbytes].view(place.dtype).view(place.shape) for place in self.places
        )


@attrs.frozen(eq=False)
class Packed:
    """A flat buffer of bytes and the tensors in it."""

    flat: Tensor
    packing: Packing
    views: tuple[Tensor, ...]

    @classmethod
    def of(cls, flat: Tensor, packing: Packing) -> Self:
        """Return the tensors that a buffer holds."""
        return cls(flat, packing, packing.views(flat))


def aligned(size: int, alignment: int) -> int:
    """Return the least multiple of ``alignment`` that is not below ``size``."""
    return -(-size // alignment) * alignment
