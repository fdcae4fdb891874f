"""Activations that wait on the host from a block's forward to its backward."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any
from weakref import ReferenceType, WeakValueDictionary, ref

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from musubi.memory.arena import CudaRegistrar, Registrar
from musubi.memory.boundaries import in_backward
from musubi.memory.copiers import CudaCopier, HostCopier, ReturningCopier
from musubi.memory.forwards import Forward, wrapped
from musubi.memory.host_pool import HostPool, Piece

Key = tuple[int, int]
"""A storage's identity, and the version of its content."""


@contextmanager
def offloading(
    blocks: Sequence[nn.Module],
    *,
    device: torch.device,
    min_bytes: int,
    depth: int,
    copier: ReturningCopier | None = None,
    registrar: Registrar | None = None,
) -> Generator[Offload]:
    """Keep what ``blocks`` save for backward on the host, as far as it is on ``device``, large, and nobody else's.

    Args:
        blocks: The blocks, wrapped around what is around their forwards by now.
        device: Where they compute.
        min_bytes: The least size of a storage that is worth the trip.
        depth: How many storages are on their way at a time: out in forward, and back, ahead of use, in backward.
        copier: What copies, by default on a stream of its own.
        registrar: What pins the host's memory, by default CUDA for its own devices.
    """
    cuda = device.type == "cuda"
    copier = copier or (CudaCopier(device) if cuda else HostCopier())
    registrar = registrar or (CudaRegistrar(device) if cuda else None)
    offload = Offload(device, copier, registrar, min_bytes=min_bytes, depth=depth)
    try:
        with wrapped(blocks, offload.around):
            yield offload
    finally:
        offload.close()


@attrs.frozen(eq=False)
class _Flight:
    """A copy that may be under way, and what must live as long."""

    ticket: object
    held: tuple[Tensor, Piece]
    waiting: ReferenceType[_Waiting]


@attrs.define(eq=False)
class _Waiting:
    """A storage that backward needs: still here (``kept``), on the host (``piece``), or here again (``back``)."""

    version: int
    piece: Piece
    kept: Tensor | None
    before: ReferenceType[_Waiting] | None
    back: Tensor | None = None
    arrival: _Flight | None = None
    changed: bool = False

    @property
    def is_here(self) -> bool:
        """Whether the device has it, or is getting it."""
        return self.kept is not None or self.back is not None

    def look(self) -> None:
        """Notice whether it was changed in place."""
        self.changed = self.changed or (self.kept is not None and self.kept._version != self.version)


@attrs.frozen(eq=False)
class _View:
    """What autograd keeps instead of a tensor: which part of a storage it is."""

    waiting: _Waiting
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@attrs.frozen(eq=False)
class _Stays:
    """A tensor that stays where it is."""

    tensor: Tensor
    version: int


class Offload:
    """Pack what autograd saves in blocks, and unpack it when backward wants it.

    A storage goes once, whoever saves views of it. It is dropped only after the computation has been told to wait for
    its copy, ``depth`` storages later, so that whoever gets its memory next cannot overwrite it too soon; nothing waits
    on the processor. In backward, the use of one storage begins the copies of the ``depth`` that were packed before it.

    What outlives the graph that it was saved for, such as an adapter's weight or an embedding that the caller keeps, is
    not an activation: keeping a copy saves nothing. It is noticed in the first pass and stays from then on. ``packed``
    and ``nbytes`` count the storages, and their bytes, that were copied to the host.
    """

    def __init__(
        self,
        device: torch.device,
        copier: ReturningCopier,
        registrar: Registrar | None = None,
        *,
        min_bytes: int,
        depth: int,
    ) -> None:
        self.packed = self.nbytes = 0
        self.pool = HostPool(registrar, settle=self._settle)
        self._device, self._copier = device, copier
        self._min_bytes, self._depth = min_bytes, depth
        self._waiting: WeakValueDictionary[Key, _Waiting] = WeakValueDictionary()
        self._last: ReferenceType[_Waiting] | None = None
        self._leaving: deque[_Flight] = deque()
        self._coming: list[_Flight] = []
        self._newest: object = None
        self._seen: dict[int, StorageWeakRef] = {}
        self._lasting: dict[int, StorageWeakRef] = {}

    def around(self, block: nn.Module, forward: Forward) -> Forward:
        """Return a forward that lets autograd save through this object."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled() or in_backward():
                return forward(*args, **kwargs)
            # Asked for in every call, since block swap binds parameters to other memory.
            owned = {t.untyped_storage().data_ptr() for t in chain(block.parameters(), block.buffers())}
            with saved_tensors_hooks(partial(self.pack, owned), self.unpack):
                return forward(*args, **kwargs)

        return run

    def pack(self, owned: set[int], tensor: Tensor) -> _View | _Stays:
        """Return what stands for a tensor until backward."""
        tensor = _alone(tensor)
        if not self._is_candidate(tensor, owned):
            return _Stays(tensor, tensor._version)
        if not self._waiting:
            self._begin_pass()
        origin = StorageWeakRef(tensor.untyped_storage())
        if origin.cdata in self._lasting:
            return _Stays(tensor, tensor._version)
        # The weak reference keeps the storage's identity from being given to another one.
        self._seen.setdefault(origin.cdata, origin)
        waiting = self._waiting.get((origin.cdata, tensor._version)) or self._send(origin.cdata, tensor)
        return _View(waiting, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def unpack(self, packed: _View | _Stays) -> Tensor:
        """Return the tensor again.

        Raises:
            RuntimeError: It was changed in place since.
        """
        if isinstance(packed, _Stays):
            if packed.tensor._version != packed.version:
                raise _changed()
            return packed.tensor
        storage = self._here(packed.waiting).untyped_storage()
        empty = torch.empty(0, dtype=packed.dtype, device=self._device)
        return empty.set_(storage, packed.offset, packed.size, packed.stride)

    def close(self) -> None:
        """Wait for what is under way, and unpin; a graph that is still there keeps what it needs."""
        self._land()
        self.pool.close()
        self._copier.close()

    def _is_candidate(self, tensor: Tensor, owned: set[int]) -> bool:
        plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
        if not plain or tensor.device.type != self._device.type or tensor.is_conj() or tensor.is_neg():
            return False
        storage = tensor.untyped_storage()
        return storage.nbytes() >= self._min_bytes and storage.data_ptr() not in owned

    def _send(self, identity: int, tensor: Tensor) -> _Waiting:
        data = _bytes(tensor)
        piece = self.pool.take(len(data))
        waiting = _Waiting(tensor._version, piece, tensor, self._last)
        self._waiting[identity, tensor._version] = waiting
        self._last = ref(waiting)
        self._newest = self._copier.copy_back(piece.data, data)
        self._leaving.append(_Flight(self._newest, (data, piece), self._last))
        self.packed += 1
        self.nbytes += len(data)
        while len(self._leaving) > self._depth:
            self._gone(self._leaving.popleft())
        return waiting

    def _gone(self, flight: _Flight) -> None:
        """Drop a storage: what is computed from now on may use its memory."""
        self._copier.wait(flight.ticket)
        waiting = flight.waiting()
        if waiting is not None:
            waiting.look()
            waiting.kept = None

    def _here(self, waiting: _Waiting) -> Tensor:
        """Return a storage on the device, and begin to fetch those that backward wants next."""
        if waiting.back is not None:
            # Backward has come to what was dropped, so that the last ones' way out is long past.
            self._land_leaving()
        elif waiting.kept is None:
            self._fetch(waiting)
        self._fetch_before(waiting)
        if waiting.arrival is not None:
            self._copier.wait(waiting.arrival.ticket)
            self._coming.remove(waiting.arrival)
            waiting.arrival = None
        waiting.look()
        if waiting.changed:
            raise _changed()
        found = waiting.kept if waiting.back is None else waiting.back
        assert found is not None, "it was fetched"
        return found

    def _fetch(self, waiting: _Waiting) -> None:
        data = waiting.piece.data
        waiting.back = torch.empty(len(data), dtype=torch.uint8, device=self._device)
        self._newest = self._copier.copy(waiting.back, data)
        waiting.arrival = _Flight(self._newest, (waiting.back, waiting.piece), ref(waiting))
        self._coming.append(waiting.arrival)

    def _fetch_before(self, waiting: _Waiting) -> None:
        for _ in range(self._depth):
            before = None if waiting.before is None else waiting.before()
            if before is None:
                return
            waiting = before
            if not waiting.is_here:
                self._fetch(waiting)

    def _begin_pass(self) -> None:
        """Forget what is over: nothing of what was packed so far is wanted any more."""
        self._land()
        alive = {**self._lasting, **self._seen}
        self._lasting = {identity: storage for identity, storage in alive.items() if not storage.expired()}
        self._seen.clear()
        self._last = None

    def _land(self) -> None:
        self._land_leaving()
        for flight in self._coming:
            self._copier.wait(flight.ticket)
            waiting = flight.waiting()
            if waiting is not None:
                waiting.arrival = None
        self._coming.clear()

    def _settle(self) -> None:
        """Return when no copy is under way: they are done in the order asked for."""
        if self._newest is not None:
            self._copier.settle(self._newest)

    def _land_leaving(self) -> None:
        while self._leaving:
            self._gone(self._leaving.popleft())


def _alone(tensor: Tensor) -> Tensor:
    """Return a tensor that does not keep its graph alive, which may keep it: nobody would ever free the two.

    A leaf stays itself, since block swap leads its ``data`` elsewhere; the version counter is shared.
    """
    return tensor if tensor.is_leaf else tensor.detach()


def _bytes(tensor: Tensor) -> Tensor:
    """Return all bytes of a tensor's storage."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)


def _changed() -> RuntimeError:
    return RuntimeError("a tensor that backward needs was changed in place after a block had used it")
