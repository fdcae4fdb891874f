"""Computing blocks again in backward instead of keeping what they computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import count, each, field, one_of
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, blocks_of

if TYPE_CHECKING:
    from torch import nn

    from musubi.memory.selective import Contexts
    from musubi.memory.sizes import BlockSize, Sizes

T = TypeVar("T")
Results = Literal["attention", "matmul"]
"""Kinds of results that may be kept: of attention, and of the Linears' products."""


@attrs.frozen(kw_only=True)
class GradientCheckpointing(MemoryPolicy):
    """Keep only the input of every ``every``-th block and compute the block again when its gradient is due.

    Costs one more forward of each such block (about a third of the step with ``every=1``); gradients are the same bit
    for bit, dropout included. Blocks in between keep all they computed.

    Args:
        every: Which blocks: each one, every second, ...
        keep: What is kept nevertheless, for half-way between time and memory: ``"attention"`` keeps its results, one
            or two more activations of the block's width, and saves its cost, which grows with the square of the
            tokens; ``"matmul"`` keeps the results of the Linears. An attention that falls back to plain products
            (torch's ``math``) has nothing to keep; what ``Compile`` has fused into one kernel is computed again.

    Example:
        >>> from musubi import GradientCheckpointing
        >>> GradientCheckpointing(every=2).every
        2
        >>> GradientCheckpointing(keep=("attention",)).to_dict()
        {'kind': 'gradient_checkpointing', 'every': 1, 'keep': ['attention']}
    """

    kind: ClassVar[str] = "gradient_checkpointing"
    phase: ClassVar[Phase] = Phase.CHECKPOINT

    every: int = field(default=1, check=count(1))
    keep: tuple[Results, ...] = field(default=(), check=each(one_of("attention", "matmul")))

    def check(self, context: FitContext) -> Iterable[Issue]:
        if context.blocks is not None and self.every > context.blocks:
            message = f"must be between 1 and {context.blocks} for {context.title}, got {self.every}"
            yield Issue("every", message, "with more, no block would be checkpointed")

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        from musubi.memory.forwards import wrapped

        contexts = self._contexts()
        chosen = self.chosen(blocks_of(model, placement.layout))
        return wrapped(chosen, lambda _, forward: _again_in_backward(forward, contexts))

    def estimate(self, sizes: Sizes) -> Sizes:
        checkpointed = len(self.chosen(sizes.blocks))
        blocks = tuple(self._keeping(block) for block in sizes.blocks) if self.keep else sizes.blocks
        return attrs.evolve(sizes, blocks=blocks, kept=len(blocks) - checkpointed, checkpointed=checkpointed)

    def chosen(self, blocks: tuple[T, ...]) -> tuple[T, ...]:
        """Return the blocks that are checkpointed: the ``every``-th, counting from 1."""
        return blocks[self.every - 1 :: self.every]

    def _keeping(self, block: BlockSize) -> BlockSize:
        """Return a block whose boundary has what is kept: at most two attentions, and half of its Linears' features."""
        from musubi.memory.sizes import KEPT_PER_FEATURE

        attention = 2 * block.boundary if "attention" in self.keep else 0
        products = round(block.working / KEPT_PER_FEATURE / 2) if "matmul" in self.keep else 0
        return attrs.evolve(block, boundary=block.boundary + attention + products)

    def _contexts(self) -> Contexts | None:
        from musubi.memory.selective import keeping

        return keeping(self.keep) if self.keep else None


def _again_in_backward(forward: Callable[..., Any], contexts: Contexts | None) -> Callable[..., Any]:
    import torch
    from torch.utils import _pytree as pytree
    from torch.utils.checkpoint import checkpoint

    options: dict[str, Any] = {} if contexts is None else {"context_fn": contexts}

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # checkpoint() saves tensors for backward only where they are arguments of their own: those of keywords and in
        # tuples it would hold on to itself, unseen by what moves saved tensors elsewhere.
        leaves, form = pytree.tree_flatten((args, kwargs))

        def again(*values: Any) -> Any:
            args, kwargs = pytree.tree_unflatten(values, form)
            return forward(*args, **kwargs)

        return checkpoint(again, *leaves, use_reentrant=False, **options)

    return run
