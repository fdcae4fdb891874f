"""Memory for tensors that are about to be filled, the bytes of tensors, and memory that is no longer needed."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

_LARGE = 2 << 20
"""Bytes from which a tensor gets pages of its own: a huge page's size on most systems."""


def room(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return an uninitialised contiguous tensor with memory of its own.

    The first touch of memory, page by page, takes more time than reading a file from the system's cache does, so on
    Linux large tensors ask for huge pages. Theirs are also the system's again as soon as the tensor is gone, whatever
    was allocated after it.
    """
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or size < _LARGE or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8).view(dtype).view(tuple(shape))


def raw(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, for reading and writing."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def owned(tensor: Tensor) -> Tensor:
    """Return the tensor if it is contiguous and alone in its memory, else a copy that is."""
    tensor = tensor.detach()
    if tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return room(tensor.shape, tensor.dtype, tensor.device).copy_(tensor)


def give_back() -> None:
    """Give the system memory that was freed but lies between what is in use; only glibc's users need to ask for that.

    What is computed while loading, tensor after tensor, otherwise leaves holes of up to a fifth of the model.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
