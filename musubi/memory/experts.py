"""Several models of one architecture that take turns on a device which has room for one of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Layout
from musubi.memory.arena import Registrar
from musubi.memory.boundaries import Boundaries
from musubi.memory.copiers import Copier
from musubi.memory.policy import blocks_of
from musubi.memory.ring import outside, resident
from musubi.memory.rotation import Ring, Statistics, total
from musubi.memory.schedule import weighted
from musubi.memory.streamable import exclusive, state_of, streamable, threshold
from musubi.memory.streams import Streams


class Experts:
    """Models whose weights wait on the host until they are used; equal parts of all of them share one slot each.

    Any of them may be called at any time, also between another's forward and its backward: each finds its own weights.
    ``use`` says which comes next, so that its weights are on their way when it is called.
    """

    def __init__(self, models: Mapping[str, nn.Module], rings: Mapping[str, _Rings], streams: Streams) -> None:
        self._models, self._rings, self._streams = dict(models), dict(rings), streams

    @property
    def device_bytes(self) -> int:
        """How much of the device's memory the large weights take: one expert's that do not stream, and the slots."""
        return self._streams.slot_bytes

    @property
    def statistics(self) -> Statistics:
        """What all rings have done so far; a switch copies the blocks that do not stream."""
        return total(ring.statistics for rings in self._rings.values() for ring in rings.all)

    def use(self, name: str) -> nn.Module:
        """Begin to copy an expert's weights to the device, in the order in which they are needed; return the model.

        Raises:
            KeyError: There is no expert of that name.
        """
        rings = self._rings[name]
        for ring in rings.around:
            ring.load(0)
        for ring in rings.around:
            # Now and not when they are called: a model may be asked where its first weight is.
            ring.acquire(0)
        for ring, rank in rings.first:
            ring.load(rank)
        return self._models[name]


@attrs.frozen(kw_only=True)
class _Rings:
    """An expert's rings: of what lies around its blocks, of its blocks, and which ranks a forward begins with."""

    around: tuple[Ring, ...]
    blocks: tuple[Ring, ...]
    first: tuple[tuple[Ring, int], ...]

    @property
    def all(self) -> tuple[Ring, ...]:
        """Every ring."""
        return *self.around, *self.blocks


@attrs.frozen(kw_only=True, eq=False)
class _Unit:
    """A module whose weights are copied together, and what its slot is for; those that ``stream`` take turns."""

    module: nn.Module
    tensors: tuple[Tensor, ...]
    use: str
    stream: bool = False
    around: bool = False


@contextmanager
def swapped_experts(
    models: Mapping[str, nn.Module],
    *,
    layout: Layout,
    blocks: int,
    device: torch.device,
    slots: int = 2,
    copier: Copier | None = None,
    registrar: Registrar | None = None,
) -> Generator[Experts]:
    """Keep the large frozen weights of all models on the host, pinned, and those in use on the device.

    ``blocks`` blocks of each model stream through ``slots`` slots. The others, and what lies around the blocks, have a
    place on the device that all models share, and change when another model is used. Small weights and whatever trains
    are on the device for all models. On exit all is where it was, bit for bit.
    """
    units = {name: list(_units(model, layout, blocks)) for name, model in models.items()}
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(resident(model, chain(*(unit.tensors for unit in units[name])), device))
        every = [unit.tensors for own in units.values() for unit in own]
        streams = Streams(every, stack, device=device, copier=copier, registrar=registrar)
        rings: dict[str, _Rings] = {}
        start = 0
        for name, own in units.items():
            rings[name] = _rings_of(own, start, streams, slots, Boundaries(stack))
            start += len(own)
        yield Experts(models, rings, streams)


def _units(model: nn.Module, layout: Layout, streamed: int) -> list[_Unit]:
    """Return what of a model can wait on the host, module by module: what lies around the blocks, then the blocks."""
    blocks = blocks_of(model, layout)
    around = dict(_around(model, blocks))
    above = threshold(tensor.nbytes for tensor in state_of(model.modules()))
    modules = [*around.values(), *blocks]
    found = [tuple(streamable(module, above=above)) for module in around.values()]
    found += [tuple(streamable(block)) for block in blocks]
    kept = exclusive(found, outside(model, modules))
    streaming = set(weighted(streamed, [sum(t.nbytes for t in unit) for unit in kept[len(around) :]]))
    named = [_Unit(module=m, tensors=t, use=n, around=True) for (n, m), t in zip(around.items(), kept, strict=False)]
    named += [
        _Unit(module=block, tensors=tensors, use="ring" if i in streaming else f"block {i}", stream=i in streaming)
        for i, (block, tensors) in enumerate(zip(blocks, kept[len(around) :], strict=True))
    ]
    return [unit for unit in named if unit.tensors]


def _around(model: nn.Module, blocks: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules outside the blocks that are called by themselves and own weights, by name."""
    inside = {id(module) for block in blocks for module in block.modules()}
    for name, module in model.named_modules():
        if id(module) not in inside and not any(module.children()) and type(module).forward is not nn.Module.forward:
            yield name, module


def _rings_of(units: Sequence[_Unit], start: int, streams: Streams, slots: int, boundaries: Boundaries) -> _Rings:
    """Return an expert's rings and let its modules drive them; ``start`` is the number of its first unit."""
    streamed = [number for number, unit in enumerate(units) if unit.stream]
    schedule, rings = streams.rings([start + number for number in streamed], slots=slots, use="ring")
    turns = dict(zip(streamed, schedule.turns, strict=True))
    around: list[Ring] = []
    alone: list[Ring] = []
    first: list[tuple[Ring, int]] = []
    for number, unit in enumerate(units):
        if number in turns:
            ring, rank = rings[turns[number].ring], turns[number].rank
        else:
            _, (ring,) = streams.rings([start + number], slots=1, use=unit.use)
            rank = 0
            (around if unit.around else alone).append(ring)
        boundaries.watch(unit.module, ring, rank)
        if not unit.around and rank in ring.turns.first():
            first.append((ring, rank))
    return _Rings(around=tuple(around), blocks=(*rings, *alone), first=tuple(first))
