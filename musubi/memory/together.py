"""Several models of one architecture under the same policies: resident together, or taking turns on the device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from musubi.memory.block_swap import BlockSwap
from musubi.memory.experts import swapped_experts
from musubi.memory.policy import MemoryPolicy, Placement, loading_device, placed

Use = Callable[[str], nn.Module]
"""Says which model comes next, by name, so that its weights are on their way, and returns it."""


def take_turns(count: int, policies: Sequence[MemoryPolicy], device: torch.device) -> bool:
    """Tell whether so many models share a place on the device: always on an accelerator, on a CPU with ``BlockSwap``.

    A single model has the place to itself.
    """
    return count > 1 and (device.type != "cpu" or any(isinstance(policy, BlockSwap) for policy in policies))


def home(count: int, policies: Sequence[MemoryPolicy], device: torch.device) -> torch.device:
    """Return where to load each of so many models: on the host if policies, or the others, leave no room elsewhere."""
    return torch.device("cpu") if take_turns(count, policies, device) else loading_device(policies, device)


@contextmanager
def placed_together(
    models: Mapping[str, nn.Module], policies: Sequence[MemoryPolicy], placement: Placement
) -> Generator[Use]:
    """Place arranged policies on every model for the length of a ``with``, and undo them in reverse.

    Where models take turns, the device holds the large frozen weights of one of them, or with ``BlockSwap`` of its
    blocks that do not stream.
    """
    turns = take_turns(len(models), policies, placement.device)
    swaps = [policy for policy in policies if turns and isinstance(policy, BlockSwap)]
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(placed(model, [policy for policy in policies if policy not in swaps], placement))
        if not turns:
            yield models.__getitem__
            return
        streamed = max((swap.number for swap in swaps), default=0)
        experts = swapped_experts(models, layout=placement.layout, blocks=streamed, device=placement.device)
        yield _Turns(stack.enter_context(experts).use)


class _Turns:
    """Begin to copy a model's weights only where another one was in use."""

    def __init__(self, use: Use) -> None:
        self._use = use
        self._last: tuple[str, nn.Module] | None = None

    def __call__(self, name: str) -> nn.Module:
        if self._last is None or self._last[0] != name:
            self._last = name, self._use(name)
        return self._last[1]
