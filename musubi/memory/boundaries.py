"""Hearing when a block is about to be used and when it has been, in forward and in backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary


class Listener(Protocol):
    """What wants to know of the blocks, which it knows by ``rank``."""

    def acquire(self, rank: int) -> None:
        """Hear that the block's weights are needed now."""
        ...

    def used(self, rank: int) -> None:
        """Hear that forward has asked for all that it needs the block's weights for."""
        ...

    def differentiated(self, rank: int) -> None:
        """Hear that backward has asked for all that it needs the block's weights for."""
        ...


class Boundaries:
    """Tell listeners about the blocks of one model, until ``stack`` is closed.

    Backward is seen through hooks on what goes into blocks and comes out of them, which leave the graph as it is: no
    sum of gradients is taken in another order. The gradient of an output comes just before the block's last layer is
    differentiated. Those of the inputs come after the block's first one: autograd goes through what is ready by the
    time of its making, latest first, so it is done with a block's layers before it goes on to what made their input.
    What several blocks get, such as the text, has its gradient after all of them, and is not waited for.

    Module backward hooks would not do: they know positional tensors only, and fire too early for a block that is called
    with keywords.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._passing = WeakTensorKeyDictionary()

    def watch(self, block: nn.Module, listener: Listener, rank: int) -> None:
        """Tell a listener about a block."""
        given: dict[int, int] = {}

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            listener.acquire(rank)
            call = _Call(partial(listener.differentiated, rank))
            given.clear()
            for tensor in _differentiable((args, kwargs)):
                given[id(tensor)] = tensor._version
                self._followed(tensor).join(call)

        def after(_: nn.Module, _args: object, output: Any) -> None:
            listener.used(rank)
            for tensor in _differentiable(output):
                # What only passes through has its gradient when another block is differentiated, the one that made it.
                if given.get(id(tensor)) != tensor._version:
                    self._followed(tensor).makers.append(partial(listener.acquire, rank))
            given.clear()

        self._stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
        self._stack.callback(block.register_forward_hook(after).remove)

    def _followed(self, tensor: Tensor) -> _Passing:
        known = self._passing.get(tensor)
        if not isinstance(known, _Passing) or known.version != tensor._version:
            # Of a tensor that is changed in place, torch tells the gradient as it was when the hook was registered.
            known = _Passing(tensor._version)
            self._passing[tensor] = known
            tensor.register_hook(known.arrived)
        return known


class _Call:
    """One use of a block, and how many of its own inputs still have no gradient."""

    def __init__(self, done: Callable[[], None]) -> None:
        self.waiting, self._done = 0, done

    def arrived(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            self._done()


class _Passing:
    """A tensor between blocks: whose output it is, and whose input: one block's, whose own it then is, or several'."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.makers: list[Callable[[], None]] = []
        self._calls: list[_Call] = []

    def join(self, call: _Call) -> None:
        """Hear of another use; one that only computes again what is being differentiated does not count."""
        if self._calls and in_backward():
            return
        if not self._calls:
            call.waiting += 1
        elif len(self._calls) == 1:
            self._calls[0].waiting -= 1
        self._calls.append(call)

    def arrived(self, _: Tensor) -> None:
        """Hear that the gradient is known: the block that got the tensor is done, the one that made it is next."""
        calls, self._calls = self._calls, []
        if len(calls) == 1:
            calls[0].arrived()
        for acquire in self.makers:
            acquire()


def in_backward() -> bool:
    """Tell whether a backward is under way in this thread, where a forward is only computed again."""
    # There is no public question for it.
    return torch._C._current_graph_task_id() != -1  # pyright: ignore[reportPrivateUsage]


def _differentiable(value: Any) -> Iterator[Tensor]:
    """Yield each tensor of nested values that gradients reach, once."""
    if torch.is_grad_enabled():
        leaves = pytree.tree_leaves(value)
        found = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad}
        yield from found.values()
