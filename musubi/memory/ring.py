"""Blocks whose frozen matrices live on the host and take turns in a few device buffers while they are used."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musubi.memory.schedule import Turns

ALIGNMENT = 256
"""Bytes; where a tensor may begin inside a flat buffer."""


class Copier(Protocol):
    """The only device-specific part: how bytes get from a host buffer into a slot."""

    def copy(self, target: Tensor, source: Tensor) -> object:
        """Begin a copy that starts after all computation asked for so far; return a ticket."""
        ...

    def wait(self, ticket: object) -> None:
        """Let computation asked for from now on start after the ticket's copy."""
        ...

    def close(self) -> None:
        """Return when no copy is under way."""
        ...


class HostCopier:
    """Copy at once, in the calling thread: for a model that computes on the host."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source)

    def wait(self, ticket: object) -> None:
        return None

    def close(self) -> None:
        return None


class CudaCopier:
    """Copy on a stream of its own, ordered with the computation by events; the processor never waits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event:
        self._stream.wait_event(torch.cuda.current_stream(self._device).record_event())
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return done

    def wait(self, ticket: object) -> None:
        if isinstance(ticket, torch.cuda.Event):
            torch.cuda.current_stream(self._device).wait_event(ticket)

    def close(self) -> None:
        self._stream.synchronize()


class Packed:
    """Tensors of given shapes and dtypes as ``views`` of one ``flat`` byte buffer."""

    def __init__(self, like: Sequence[Tensor], *, device: torch.device, pinned: bool = False) -> None:
        ends = list(itertools.accumulate(_aligned(t.nbytes) for t in like))
        self.flat = torch.empty(ends[-1], dtype=torch.uint8, device=device, pin_memory=pinned)
        starts = [0, *ends[:-1]]
        self.views = tuple(
            self.flat[start : start + t.nbytes].view(t.dtype).view(t.shape)
            for start, t in zip(starts, like, strict=True)
        )


class _Member:
    """One streamed block: its parameters, where their bytes are on the host, and where they came from."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, pinned: bool) -> None:
        self.parameters = tuple(parameters)
        self.device = parameters[0].device
        self.master = Packed(parameters, device=torch.device("cpu"), pinned=pinned)
        for parameter, view in zip(parameters, self.master.views, strict=True):
            view.copy_(parameter.data)
        self.bind(self.master)

    def bind(self, packed: Packed) -> None:
        # `.data` and not a new Parameter: identity, hooks and autograd's version counters stay as they are.
        for parameter, view in zip(self.parameters, packed.views, strict=True):
            parameter.data = view

    def restore(self) -> None:
        for parameter, view in zip(self.parameters, self.master.views, strict=True):
            parameter.data = view.to(self.device)


class Ring:
    """Blocks of equal shapes and dtypes that share a few device buffers."""

    def __init__(
        self, blocks: Sequence[Sequence[nn.Parameter]], *, slots: int, device: torch.device, copier: Copier
    ) -> None:
        self.turns = Turns(len(blocks), min(slots, len(blocks)))
        self.copies = 0
        self._copier = copier
        self._members = [_Member(block, pinned=device.type == "cuda") for block in blocks]
        self._slots = [Packed(blocks[0], device=device) for _ in range(self.turns.slots)]
        self._holds: list[int | None] = [None] * self.turns.slots
        self._tickets: list[object] = [None] * self.turns.slots

    def acquire(self, rank: int) -> None:
        """Have the block's matrices on the device for the computation that follows, whoever was expected instead."""
        self.load(rank)
        slot = self.turns.slot(rank)
        self._copier.wait(self._tickets[slot])
        self._members[rank].bind(self._slots[slot])

    def load(self, rank: int) -> None:
        """Begin to copy the block into its slot unless it is there; the former owner is on the host again."""
        slot = self.turns.slot(rank)
        former = self._holds[slot]
        if former == rank:
            return
        if former is not None:
            self._members[former].bind(self._members[former].master)
        self._tickets[slot] = self._copier.copy(self._slots[slot].flat, self._members[rank].master.flat)
        self._holds[slot] = rank
        self.copies += 1

    def used(self, rank: int) -> None:
        """Load what follows in forward; inside backward, where a forward is only computed again, do nothing."""
        if torch._C._current_graph_task_id() != -1:  # pyright: ignore[reportPrivateUsage]  # no public question for it
            return
        for follower in self.turns.after_forward(rank, again=not torch.is_grad_enabled()):
            self.load(follower)

    def differentiated(self, rank: int) -> None:
        """Load what follows in backward."""
        for follower in self.turns.after_backward(rank):
            self.load(follower)

    def close(self) -> None:
        """Give every parameter its bytes back, on the device it came from."""
        self._copier.close()
        for member in self._members:
            member.restore()


@contextmanager
def streaming(
    model: nn.Module, blocks: Sequence[nn.Module], *, device: torch.device, slots: int = 2, copier: Copier | None = None
) -> Generator[tuple[Ring, ...]]:
    """Stream the frozen matrices of ``blocks``; everything else of ``model`` is on ``device`` for good.

    Matrices are frozen parameters of two or more dimensions; vectors, and whatever trains, stay on the device. Blocks
    of equal layout share a ring. On exit all is where it was, bit for bit.
    """
    moved = copier or (CudaCopier(device) if device.type == "cuda" else HostCopier())
    matrices = {block: tuple(frozen_matrices(block)) for block in blocks}
    groups = _by_signature({block: found for block, found in matrices.items() if found})
    streamed = {id(p) for found in matrices.values() for p in found}
    with ExitStack() as stack:
        stack.enter_context(_resident(model, streamed, device))
        rings: list[Ring] = []
        for group in groups:
            ring = Ring([matrices[block] for block in group], slots=slots, device=device, copier=moved)
            stack.callback(ring.close)
            for rank, block in enumerate(group):
                _watch(block, ring, rank, stack)
            rings.append(ring)
        yield tuple(rings)


def frozen_matrices(block: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a block that can stream: frozen, of two or more dimensions."""
    return (p for p in block.parameters() if p.ndim >= 2 and not p.requires_grad)


def _by_signature(matrices: dict[nn.Module, tuple[nn.Parameter, ...]]) -> Iterable[list[nn.Module]]:
    groups: dict[tuple[tuple[torch.Size, torch.dtype], ...], list[nn.Module]] = {}
    for block, found in matrices.items():
        groups.setdefault(tuple((p.shape, p.dtype) for p in found), []).append(block)
    return groups.values()


@contextmanager
def _resident(model: nn.Module, streamed: set[int], device: torch.device) -> Generator[None]:
    """Keep all parameters and buffers that do not stream on the device."""
    others = [t for t in itertools.chain(model.parameters(), model.buffers()) if id(t) not in streamed]
    homes = [(t, t.device) for t in others if t.device != device]
    for tensor, _ in homes:
        tensor.data = tensor.data.to(device)
    try:
        yield
    finally:
        for tensor, home in homes:
            tensor.data = tensor.data.to(home)


def _watch(block: nn.Module, ring: Ring, rank: int, stack: ExitStack) -> None:
    """Tell the ring when a block is about to be used and when it has been, in forward and in backward.

    Backward is seen through identity functions around the block. Module backward hooks would not do: they know
    positional tensors only, and fire too early for a block that is called with keywords.
    """

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ring.acquire(rank)
        bounded: tuple[tuple[Any, ...], dict[str, Any]] = _bounded((args, kwargs), lambda: ring.differentiated(rank))
        return bounded

    def after(_: nn.Module, _args: object, output: Any) -> Any:
        ring.used(rank)
        return _bounded(output, lambda: ring.acquire(rank))

    stack.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
    stack.callback(block.register_forward_hook(after).remove)


def _bounded(value: Any, in_backward: Callable[[], None]) -> Any:
    """Return the same values behind one boundary that backward crosses when all their gradients are known."""
    leaves, form = pytree.tree_flatten(value)
    indices = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not indices or not torch.is_grad_enabled():
        return value
    passed: tuple[Tensor, ...] = _Boundary.apply(in_backward, *(leaves[i] for i in indices))  # type: ignore[no-untyped-call]
    for i, tensor in zip(indices, passed, strict=True):
        leaves[i] = tensor
    return pytree.tree_unflatten(leaves, form)


class _Boundary(torch.autograd.Function):
    """Identity that calls a function when its gradients pass."""

    @staticmethod
    def forward(ctx: Any, in_backward: Callable[[], None], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.in_backward = in_backward
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        ctx.in_backward()
        return (None, *grad_outputs)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
