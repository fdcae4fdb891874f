"""Which tensors of a block are worth keeping on the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

SMALLEST = 64 << 10
"""Bytes; what is not larger stays on the device: a copy would cost more than the memory is worth."""


def threshold(sizes: Iterable[int]) -> int:
    """Return the bytes that a tensor must exceed to stream, given those of all that could.

    It is 64 KiB. In a toy, where nothing is so large, a quarter of the largest: toys stream as real models do.
    """
    return min(SMALLEST, max(sizes, default=0) // 4)


def streamable(block: nn.Module, *, trained: bool = False, above: int | None = None) -> Iterator[Tensor]:
    """Yield the tensors of a block that can live on the host: large, plain and frozen, in the order of its modules.

    Those are parameters, and buffers that belong to the model's state, such as scales. Norms and biases are too small,
    adapters and whatever trains stay on the device unless ``trained``. Tensor subclasses (of quantisation libraries)
    stay too: nothing but their own code can move what is inside them. ``above`` replaces ``threshold`` of the block.
    """
    found = [tensor for tensor in state_of(block.modules()) if _plain(tensor) and (trained or not tensor.requires_grad)]
    least = threshold(tensor.nbytes for tensor in found) if above is None else above
    return (tensor for tensor in found if tensor.nbytes > least)


def state_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the parameters and persistent buffers that modules own themselves, each once, module by module."""
    owned = chain.from_iterable(map(_own, modules))
    return list({id(tensor): tensor for tensor in owned}.values())


def exclusive(units: Sequence[Sequence[Tensor]], others: Iterable[Tensor] = ()) -> list[tuple[Tensor, ...]]:
    """Return each unit's tensors without those that another unit, or anything of ``others``, uses too."""
    uses = Counter(id(tensor) for tensor in chain(*units, others))
    return [tuple(tensor for tensor in unit if uses[id(tensor)] == 1) for unit in units]


def _own(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    passing = module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]  # no public question
    yield from (buffer for name, buffer in module.named_buffers(recurse=False) if name not in passing)


def _plain(tensor: Tensor) -> bool:
    return type(tensor) in {Tensor, nn.Parameter} and tensor.layout is torch.strided and tensor.numel() > 0
