"""Host memory of streamed blocks: in whole pages, pinned where it is, and shared where it is shared already."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from musubi.memory.packing import ALIGNMENT, Packed, Packing, aligned

logger = logging.getLogger(__name__)

PAGE = mmap.PAGESIZE
CHUNK = 4 << 30
"""Bytes that are allocated and registered at a time, unless one block has more."""

_IN_BETWEEN = 0.02
"""Share of a span that may be something else, such as biases, for it to be copied as it lies."""


class Registrar(Protocol):
    """Pin memory that is there already."""

    def register(self, address: int, size: int) -> bool:
        """Pin some pages; tell whether that worked."""
        ...

    def unregister(self, address: int) -> None:
        """Undo ``register`` at the same address."""
        ...


class CudaRegistrar:
    """Pin with ``cudaHostRegister``: torch's ``pin_memory`` would copy, and round every block up to a power of two."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def register(self, address: int, size: int) -> bool:
        with torch.cuda.device(self._device):
            # 0 are the usual flags: the memory is copied from, never read by kernels.
            failed = int(_cudart().cudaHostRegister(address, size, 0)) != 0
            if failed:
                # CUDA keeps the error, and whatever kernel is launched next would report it: launch one that may.
                with suppress(RuntimeError):
                    torch.zeros(1, device=self._device)
        return not failed

    def unregister(self, address: int) -> None:
        with torch.cuda.device(self._device):
            _cudart().cudaHostUnregister(address)


@attrs.frozen
class Region:
    """Whole pages that are pinned together; a copy must not cross from one region into another."""

    address: int
    size: int


class Arena:
    """The host copies (``masters``) of blocks' tensors, which become views of it; each block is one flat buffer.

    A block whose tensors lie in one storage already, in order and at ``ALIGNMENT``, stays where it is if ``adopt``: so
    do weights that all processes of a machine map from one file, and those of a model that was swapped before. Other
    blocks are moved one by one, and each tensor's former memory is free at once.
    """

    def __init__(
        self, blocks: Sequence[Sequence[Tensor]], *, registrar: Registrar | None = None, adopt: bool = True
    ) -> None:
        lying = [_span(block) if adopt else None for block in blocks]
        moved = _moved([block for block, span in zip(blocks, lying, strict=True) if span is None])
        self.masters: tuple[Packed, ...] = tuple(next(moved) if span is None else span for span in lying)
        self.adopted = sum(span is not None for span in lying)
        self._registrar, self._registered = registrar, list[Region]()
        if registrar is not None:
            self._pin(registrar)

    @property
    def pinned(self) -> bool:
        """Whether the device can fetch from here by itself."""
        return bool(self._registered)

    @property
    def pinned_bytes(self) -> int:
        """How many bytes are locked in memory."""
        return sum(region.size for region in self._registered)

    @property
    def nbytes(self) -> int:
        """How many bytes the blocks' tensors have."""
        return sum(master.packing.nbytes for master in self.masters)

    def close(self) -> None:
        """Unpin; the memory lives on as long as tensors use it."""
        while self._registered:
            region = self._registered.pop()
            assert self._registrar is not None, "it has registered them"
            self._registrar.unregister(region.address)

    def _pin(self, registrar: Registrar) -> None:
        for region in regions(self.masters):
            if not registrar.register(region.address, region.size):
                self.close()
                logger.warning(
                    "cannot pin %.1f GiB of weights: they are copied by way of two small pinned buffers, which costs "
                    "the processor time (raise the limit of locked memory, e.g. `ulimit -l unlimited`)",
                    self.nbytes / (1 << 30),
                )
                return
            self._registered.append(region)


def _cudart() -> Any:
    return torch.cuda.cudart()


def regions(masters: Iterable[Packed], *, limit: int = CHUNK) -> Iterator[Region]:
    """Yield the pages of all blocks, neighbours together up to ``limit`` bytes; every block is within one region."""
    start = end = 0
    for address, size in sorted((master.flat.data_ptr(), len(master.flat)) for master in masters):
        stop = aligned(address + size, PAGE)
        if address != end or stop - start > limit:
            if end > start:
                yield Region(start, end - start)
            start = address
        end = stop
    if end > start:
        yield Region(start, end - start)


def chunks(sizes: Sequence[int], *, limit: int = CHUNK) -> list[list[int]]:
    """Return sizes in their order in groups of at most ``limit`` together; one that is larger is by itself."""
    groups: list[list[int]] = []
    for size in sizes:
        if groups and sum(groups[-1]) + size <= limit:
            groups[-1].append(size)
        else:
            groups.append([size])
    return groups


def _moved(blocks: Sequence[Sequence[Tensor]]) -> Iterator[Packed]:
    """Move blocks one by one into new memory, a whole page each."""
    packings = [Packing.of(block) for block in blocks]
    waiting = iter(zip(blocks, packings, strict=True))
    for sizes in chunks([aligned(packing.size, PAGE) for packing in packings]):
        memory, start = _pages(sum(sizes)), 0
        for size in sizes:
            block, packing = next(waiting)
            yield _packed(block, Packed.of(memory[start : start + packing.size], packing))
            start += size


def _packed(block: Sequence[Tensor], master: Packed) -> Packed:
    for tensor, view in zip(block, master.views, strict=True):
        view.copy_(tensor.data)
        tensor.data = view  # the former memory is free now, unless somebody else uses it
    return master


def _pages(size: int) -> Tensor:
    """Return bytes that begin with a page; the system gives the memory itself when it is written to."""
    memory = torch.empty(size + PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % PAGE
    return memory[start : start + size]


def _span(block: Sequence[Tensor]) -> Packed | None:
    """Return a block as it lies in memory, if one copy can take it from there."""
    storage = block[0].untyped_storage()
    if any(t.device.type != "cpu" or not t.is_contiguous() for t in block):
        return None
    if any(t.untyped_storage().data_ptr() != storage.data_ptr() for t in block):
        return None
    origin = block[0].data_ptr()
    starts = [tensor.data_ptr() - origin for tensor in block]
    ends = [start + tensor.nbytes for start, tensor in zip(starts, block, strict=True)]
    ordered = all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    if not ordered or origin % PAGE or any(start % ALIGNMENT for start in starts):
        return None
    if sum(tensor.nbytes for tensor in block) < (1 - _IN_BETWEEN) * ends[-1]:
        return None
    flat = torch.empty(0, dtype=torch.uint8).set_(storage, origin - storage.data_ptr(), (ends[-1],), (1,))
    return Packed.of(flat, Packing.at(block, starts, ends[-1]))
