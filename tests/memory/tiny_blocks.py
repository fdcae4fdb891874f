"""The blocks of the tiny model: swapped, and run in any order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from musubi.memory.ring import Copier, Ring, streaming
from musubi.memory.schedule import spread
from tests.memory import tiny
from tests.memory.copiers import LateCopier

CPU = torch.device("cpu")


def stream(stack: ExitStack, model: nn.Module, streamed: int, *, slots: int = 2, copier: Copier | None = None) -> Ring:
    """Swap some blocks, evenly spread, until the stack is closed."""
    blocks = [model.get_submodule(f"blocks.{index}") for index in spread(streamed, tiny.LAYERS)]
    (ring,) = stack.enter_context(streaming(model, blocks, device=CPU, slots=slots, copier=copier or LateCopier()))
    return ring


def through(model: nn.Module, order: Sequence[int], value: Tensor) -> Tensor:
    """Return what blocks in any order make of a value."""
    blocks = model.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    others = torch.full((1, 5, 64), 0.3), torch.full((1, 6, 64), 0.1), tiny.rotation(model)
    for index in order:
        value = blocks[index](value, *others)
    return value
