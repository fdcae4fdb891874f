"""Keeping some blocks' weights on the host until they are used."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, field, optional
from musubi.memory.budget import budget
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, blocks_of
from musubi.memory.schedule import weighted

if TYPE_CHECKING:
    from torch import nn

    from musubi.memory.sizes import Sizes

SLOTS = 2
"""Device buffers that the swapped blocks share: one in use, one being filled."""

_WRITING_SLOTS = 3
"""The same with blocks that are trained: one more is on its way back."""


def _number(value: object) -> str | None:
    """Accept a number of blocks, or ``auto``."""
    if value == "auto":
        return None
    if isinstance(value, str):
        return f"must be a whole number of at least 1, or 'auto', got {value!r}"
    return count(1)(value)


@attrs.frozen(kw_only=True)
class BlockSwap(MemoryPolicy):
    """Keep the weights of ``blocks`` blocks in host memory and copy each to the device just before its use.

    The swapped blocks are spread over the model so that each copy has equally long to finish; they take turns in two
    device buffers, the next one being copied while the present one computes. Frozen weights never travel back. Outputs
    and gradients are the same bit for bit, with or without gradient checkpointing; training and sampling need no switch
    between them. Swapped weights are pinned; processes of one machine share one copy of them.

    Args:
        blocks: How many, or ``auto``: as few as fit into ``budget``, by the numbers of a plan.
        write_back: Swap weights that are trained as well (``FullFineTune``): they are updated in their slot while
            backward runs, so the optimiser needs ``fused_backward=True``, and copied back before it is another's.
        budget: The device memory that ``auto`` may use, e.g. ``16GiB``; None is what is free on the device.

    Example:
        >>> from musubi import BlockSwap
        >>> BlockSwap(blocks=20).to_dict()
        {'kind': 'block_swap', 'blocks': 20, 'write_back': False}
    """

    kind: ClassVar[str] = "block_swap"
    phase: ClassVar[Phase] = Phase.SWAP
    loads_on_host: ClassVar[bool] = True

    blocks: int | Literal["auto"] = field(check=_number)
    write_back: bool = False
    budget: str | None = field(default=None, check=optional(budget))

    def problems(self) -> Iterable[Issue]:
        """Yield what does not fit together."""
        if self.budget is not None and self.blocks != "auto":
            yield Issue("budget", f"decides nothing, as blocks is {self.blocks}", 'give blocks="auto", or no budget')

    def check(self, context: FitContext) -> Iterable[Issue]:
        yield from self._too_many(context.title, context.blocks)
        if context.divided:
            message = "BlockSwap does not work with a divided model (FSDP)"
            yield Issue("", message, "leave it out: each process keeps only its share of the weights")
        if context.trains_base and not self.write_back:
            hint = (
                "BlockSwap(blocks=..., write_back=True) with an optimiser of fused_backward=True; or use "
                "GradientCheckpointing, fused_backward, weights='bfloat16', or FSDP over several devices"
            )
            yield Issue("", "BlockSwap never copies weights back, so it cannot hold trained ones", hint)
        if self.write_back and not context.trains_base:
            yield Issue("write_back", "is for weights that are trained, but here they are frozen", "leave it out")
        elif self.write_back and not context.fused_backward:
            hint = "give the optimiser fused_backward=True: AdamW, AdamW8bit, Adafactor or Lion"
            yield Issue("write_back", "needs an optimiser that updates weights during backward", hint)

    def choices(self, context: FitContext) -> Iterable[tuple[MemoryPolicy, ...]]:
        """Yield nothing, then one block more each time; itself if the number is fixed, or that of blocks not known."""
        if self.blocks != "auto" or context.blocks is None:
            yield (self,)
            return
        yield ()
        for number in range(1, context.blocks):
            yield (BlockSwap(blocks=number, write_back=self.write_back),)

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        return self._streaming(model, placement)

    @contextmanager
    def _streaming(self, model: nn.Module, placement: Placement) -> Generator[None]:
        from musubi.memory.ring import streaming
        from musubi.memory.streamable import streamable

        blocks = blocks_of(model, placement.layout)
        number = self.number
        issues = tuple(self._too_many(placement.title, len(blocks)))
        if issues:
            raise ConfigError(type(self).__name__, issues)
        sizes = [sum(tensor.nbytes for tensor in streamable(block, trained=self.write_back)) for block in blocks]
        chosen = [blocks[index] for index in weighted(number, sizes)]
        with streaming(model, chosen, device=placement.device, slots=self._slots, write_back=self.write_back):
            yield

    def estimate(self, sizes: Sizes) -> Sizes:
        if self.blocks == "auto":
            return sizes
        each = [block.matrices for block in sizes.blocks]
        chosen = [each[index] for index in weighted(self.blocks, each)]
        held = sum(size * min(self._slots, number) for size, number in Counter(chosen).items())
        packing = max(chosen, default=0)
        return attrs.evolve(
            sizes,
            weights=sizes.weights - sum(chosen) + held,
            pinned=sizes.pinned + sum(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in chosen),
            # The model is loaded on the host, then packed block by block.
            host=max(sizes.host, sizes.weights) + packing,
            streamed=sizes.streamed + sum(chosen) - held,
        )

    @property
    def _slots(self) -> int:
        return _WRITING_SLOTS if self.write_back else SLOTS

    @property
    def number(self) -> int:
        """How many blocks stream.

        Raises:
            ConfigError: It is still to be decided.
        """
        if self.blocks == "auto":
            message = "is still 'auto', but the model is to be placed"
            hint = "runs and plans choose the number themselves; to place a policy by hand, give a number"
            raise ConfigError(type(self).__name__, [Issue("blocks", message, hint)])
        return self.blocks

    def _too_many(self, title: str, blocks: int | None) -> Iterable[Issue]:
        if blocks is not None and self.blocks != "auto" and self.blocks >= blocks:
            message = f"must be between 1 and {blocks - 1} for {title}, got {self.blocks}"
            yield Issue("blocks", message, f"{blocks} blocks exist, one must stay")
