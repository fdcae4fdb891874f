"""Leaving something in host memory for good: all of a component, or the tables that it only looks rows up in."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.memory.policy import MemoryPolicy, Phase, Placement

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@attrs.frozen(kw_only=True)
class ComputeOnHost(MemoryPolicy):
    """Load a component into host memory and leave it there: it computes on the processor."""

    kind: ClassVar[str] = "compute_on_host"
    phase: ClassVar[Phase] = Phase.SWAP
    loads_on_host: ClassVar[bool] = True


@attrs.frozen(kw_only=True)
class TablesOnHost(MemoryPolicy):
    """Look rows of embeddings up in host memory, and bring only these to the device; the same bits.

    ``tables`` are the library's names of embeddings. Acts before a swap, which then does not see their weights.
    """

    kind: ClassVar[str] = "tables_on_host"
    phase: ClassVar[Phase] = Phase.ACTIVATIONS
    loads_on_host: ClassVar[bool] = True

    tables: tuple[str, ...]

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        return _looked_up([model.get_submodule(name) for name in self.tables], placement.device)


@contextmanager
def _looked_up(tables: Sequence[nn.Module], device: torch.device) -> Generator[None]:
    import torch

    host = torch.device("cpu")

    def to_host(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(ids.to(host) for ids in args)

    def to_device(_: nn.Module, __: object, rows: Tensor) -> Tensor:
        return rows.to(device)

    with ExitStack() as stack:
        for table in tables:
            stack.enter_context(_hidden(table, "weight"))
            stack.callback(table.register_forward_pre_hook(to_host).remove)
            stack.callback(table.register_forward_hook(to_device).remove)
        yield


@contextmanager
def _hidden(module: nn.Module, name: str) -> Generator[None]:
    """Keep a parameter as an attribute that nobody who lists or moves parameters meets."""
    parameter = module.get_parameter(name)
    delattr(module, name)
    vars(module)[name] = parameter
    try:
        yield
    finally:
        del vars(module)[name]
        module.register_parameter(name, parameter)
