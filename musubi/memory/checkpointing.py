"""Computing blocks again in backward instead of keeping what they computed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import count, field
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, blocks_of

if TYPE_CHECKING:
    from torch import nn

    from musubi.memory.sizes import Sizes

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class GradientCheckpointing(MemoryPolicy):
    """Keep only the input of every ``every``-th block and compute the block again when its gradient is due.

    Costs one more forward of each such block (about a third of the step with ``every=1``); gradients are the same bit
    for bit. Blocks in between keep all they computed.

    Example:
        >>> from musubi import GradientCheckpointing
        >>> GradientCheckpointing(every=2).every
        2
    """

    kind: ClassVar[str] = "gradient_checkpointing"
    phase: ClassVar[Phase] = Phase.CHECKPOINT

    every: int = field(default=1, check=count(1))

    def check(self, context: FitContext) -> Iterable[Issue]:
        if context.blocks is not None and self.every > context.blocks:
            message = f"must be between 1 and {context.blocks} for {context.title}, got {self.every}"
            yield Issue("every", message, "with more, no block would be checkpointed")

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        return _checkpointed(self.chosen(blocks_of(model, placement.layout)))

    def estimate(self, sizes: Sizes) -> Sizes:
        checkpointed = len(self.chosen(sizes.blocks))
        return attrs.evolve(sizes, kept=len(sizes.blocks) - checkpointed, checkpointed=checkpointed)

    def chosen(self, blocks: tuple[T, ...]) -> tuple[T, ...]:
        """Return the blocks that are checkpointed: the ``every``-th, counting from 1."""
        return blocks[self.every - 1 :: self.every]


@contextmanager
def _checkpointed(blocks: Iterable[nn.Module]) -> Generator[None]:
    """Wrap the blocks' own forward, inside whatever hooks they have or get, and give it back in the end."""
    wrapped: list[tuple[nn.Module, Callable[..., Any] | None]] = []
    try:
        for block in blocks:
            wrapped.append((block, vars(block).get("forward")))
            block.forward = _again_in_backward(block.forward)
        yield
    finally:
        for block, own in wrapped:
            if own is None:
                del block.forward
            else:
                block.forward = own


def _again_in_backward(forward: Callable[..., Any]) -> Callable[..., Any]:
    import torch
    from torch.utils.checkpoint import checkpoint

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
