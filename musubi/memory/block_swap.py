"""Keeping some blocks' weights on the host until they are used."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, field
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, blocks_of
from musubi.memory.schedule import spread

if TYPE_CHECKING:
    from torch import nn

    from musubi.memory.sizes import Sizes

SLOTS = 2
"""Device buffers that the swapped blocks share: one in use, one being filled."""


@attrs.frozen(kw_only=True)
class BlockSwap(MemoryPolicy):
    """Keep the frozen weights of ``blocks`` blocks in host memory and copy each to the device just before its use.

    The swapped blocks are spread evenly over the model; they take turns in two device buffers, the next one being
    copied while the present one computes. Frozen weights never travel back. Outputs and gradients are the same bit for
    bit, with or without gradient checkpointing; training and sampling need no switch between them.

    Example:
        >>> from musubi import BlockSwap
        >>> BlockSwap(blocks=20).to_dict()
        {'kind': 'block_swap', 'blocks': 20}
    """

    kind: ClassVar[str] = "block_swap"
    phase: ClassVar[Phase] = Phase.SWAP
    loads_on_host: ClassVar[bool] = True

    blocks: int = field(check=count(1))

    def check(self, context: FitContext) -> Iterable[Issue]:
        if context.blocks is not None and self.blocks >= context.blocks:
            message = f"must be between 1 and {context.blocks - 1} for {context.title}, got {self.blocks}"
            yield Issue("blocks", message, f"{context.blocks} blocks exist, one must stay")

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        return self._streaming(model, placement)

    @contextmanager
    def _streaming(self, model: nn.Module, placement: Placement) -> Generator[None]:
        from musubi.memory.ring import streaming

        blocks = blocks_of(model, placement.layout)
        known = FitContext(title=placement.title, layout=placement.layout, blocks=len(blocks))
        issues = tuple(self.check(known))
        if issues:
            raise ConfigError(type(self).__name__, issues)
        chosen = [blocks[index] for index in spread(self.blocks, len(blocks))]
        with streaming(model, chosen, device=placement.device, slots=SLOTS):
            yield

    def estimate(self, sizes: Sizes) -> Sizes:
        chosen = [sizes.blocks[index] for index in spread(self.blocks, len(sizes.blocks))]
        layouts: dict[int, int] = {}
        for block in chosen:
            layouts[block.matrices] = min(SLOTS, layouts.get(block.matrices, 0) + 1)
        slots = sum(size * number for size, number in layouts.items())
        streamed = sum(block.matrices for block in chosen)
        stored = max(sizes.host, sizes.weights)  # the model is loaded on the host, then packed block by block
        packing = max(block.matrices for block in chosen)
        return attrs.evolve(
            sizes, weights=sizes.weights - streamed + slots, pinned=sizes.pinned + streamed, host=stored + packing
        )
