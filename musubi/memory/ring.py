"""A model whose blocks' large weights live on the host and take turns in a few device buffers while they are used."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from musubi.memory.arena import Registrar
from musubi.memory.boundaries import Boundaries
from musubi.memory.copiers import Copier, HostCopier
from musubi.memory.rotation import Ring, Statistics
from musubi.memory.streamable import exclusive, state_of, streamable
from musubi.memory.streams import Streams

__all__ = ["Copier", "HostCopier", "Ring", "Statistics", "resident", "streaming"]


@contextmanager
def streaming(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    *,
    device: torch.device,
    slots: int = 2,
    copier: Copier | None = None,
    write_back: bool = False,
    registrar: Registrar | None = None,
) -> Generator[tuple[Ring, ...]]:
    """Stream the large frozen weights of ``blocks``; everything else of ``model`` is on ``device`` for good.

    ``blocks`` are in execution order; those of equal layout share a ring of ``slots`` slots. With ``write_back``,
    weights that train stream too: the optimiser must update them during backward, and a slot more leaves their way back
    time. On exit all is where it was, bit for bit but for what was learned.
    """
    found = [tuple(streamable(block, trained=write_back)) for block in blocks]
    units = {b: unit for b, unit in zip(blocks, exclusive(found, outside(model, blocks)), strict=True) if unit}
    with ExitStack() as stack:
        stack.enter_context(resident(model, chain(*units.values()), device))
        streams = Streams(
            list(units.values()), stack, device=device, copier=copier, write_back=write_back, registrar=registrar
        )
        schedule, rings = streams.rings(range(len(units)), slots=slots)
        boundaries = Boundaries(stack)
        for block, turn in zip(units, schedule.turns, strict=True):
            boundaries.watch(block, rings[turn.ring], turn.rank)
        if not write_back:
            for ring in rings:
                ring.load_first()
        yield rings


@contextmanager
def resident(model: nn.Module, streamed: Iterable[Tensor], device: torch.device) -> Generator[None]:
    """Keep all parameters and buffers that do not stream on the device."""
    moving = {id(tensor) for tensor in streamed}
    others = [t for t in chain(model.parameters(), model.buffers()) if id(t) not in moving]
    moved: list[tuple[Tensor, torch.device]] = []
    try:
        for tensor in others:
            if tensor.device != device:
                home = tensor.device
                tensor.data = tensor.data.to(device)
                moved.append((tensor, home))
        yield
    finally:
        for tensor, home in moved:
            tensor.data = tensor.data.to(home)


def outside(model: nn.Module, blocks: Iterable[nn.Module]) -> list[Tensor]:
    """Return what the modules of a model have that are in none of the blocks."""
    inside = {module for block in blocks for module in block.modules()}
    return state_of(module for module in model.modules() if module not in inside)
