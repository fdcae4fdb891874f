"""Letting a budget choose the memory policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field, optional
from musubi.memory.budget import budget
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement

if TYPE_CHECKING:
    from torch import nn


@attrs.frozen(kw_only=True)
class Memory(MemoryPolicy):
    """Take what a budget of device memory needs and no more, by the numbers of a plan.

    In this order, until it fits: nothing; in training, gradient checkpointing; weights in 8 bits (``Int8Scaled``); as
    few swapped blocks as will do; in training, activations on the host. What a trainer or pipeline names itself stays
    as it is. ``plan()`` shows what was chosen as a line to paste, a run logs it, and a run that is resumed keeps the
    weights that it began with.

    Args:
        budget: Device memory, e.g. ``16GiB``; None is what is free on the device when the run starts.

    Example:
        >>> from musubi import Memory
        >>> Memory.fit("16GiB").to_dict()
        {'kind': 'memory', 'budget': '16GiB'}
    """

    kind: ClassVar[str] = "memory"
    phase: ClassVar[Phase] = Phase.SWAP

    budget: str | None = field(default=None, check=optional(budget))

    @classmethod
    def fit(cls, budget: str | int | None = None) -> Self:
        """Return a policy for a budget: ``16GiB``, ``12 GB`` or a number of bytes.

        Raises:
            ConfigError: It is not an amount of memory.
        """
        plain = isinstance(budget, int) and not isinstance(budget, bool)
        return cls(budget=f"{budget} B" if plain else budget)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def choices(self, context: FitContext) -> Iterable[tuple[MemoryPolicy, ...]]:
        """Yield what may be added to the other policies, cheapest in time first."""
        seen: set[tuple[MemoryPolicy, ...]] = set()
        for chosen in _ladder(context, {policy.kind for policy in context.policies}):
            if chosen not in seen:
                seen.add(chosen)
                yield chosen

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        """Refuse: there is nothing to place before the policies are chosen."""
        hint = "runs and plans choose them themselves; to place policies by hand, name them"
        raise ConfigError(type(self).__name__, [Issue("", "has not chosen policies for this model yet", hint)])


def _ladder(context: FitContext, taken: set[str]) -> Iterator[tuple[MemoryPolicy, ...]]:
    """Yield rung after rung; what is ``taken`` already, or cannot be used here, is left out."""
    from musubi.memory.activation_offload import ActivationOffload
    from musubi.memory.block_swap import BlockSwap
    from musubi.memory.checkpointing import GradientCheckpointing
    from musubi.memory.quantise import Int8Scaled, Quantise

    chosen: tuple[MemoryPolicy, ...] = ()
    yield chosen
    if context.training and GradientCheckpointing.kind not in taken:
        chosen = (GradientCheckpointing(),)
        yield chosen
    quantised = any(isinstance(policy, Quantise) for policy in context.policies)
    if not (context.trains_base or context.divided or context.stored or quantised) and context.layout.quantise:
        chosen = (Int8Scaled(), *chosen)
        yield chosen
    swapping = not context.divided and (not context.trains_base or context.fused_backward)
    swaps: tuple[BlockSwap, ...] = ()
    if swapping and BlockSwap.kind not in taken and context.blocks is not None:
        swaps = tuple(BlockSwap(blocks=n, write_back=context.trains_base) for n in range(1, context.blocks))
    yield from ((*chosen, swap) for swap in swaps)
    if context.training and ActivationOffload.kind not in taken:
        chosen = (*chosen, ActivationOffload())
        yield from ((*chosen, swap) for swap in (swaps or ()))
        if not swaps:
            yield chosen
