"""A copier that holds on to nothing and copies as late as it may."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from tests.memory.copiers import NAN


@attrs.define(eq=False)
class Ticket:
    """A copy to be made between two storages that may be gone by then; ``start`` is where it is in the host's."""

    host: StorageWeakRef
    device: StorageWeakRef
    start: int
    size: int
    leaving: bool
    done: bool = False

    @property
    def direction(self) -> str:
        """Return ``out`` or ``in``, as the log has it."""
        return "out" if self.leaving else "in"


class StrictCopier:
    """Copy when somebody waits; until then targets are full of NaN, and sources must not be dropped.

    ``log`` has what was asked for, in order: ``("out", size)``, ``("in", size)``, ``("wait out", size)``, ...;
    ``sources`` the addresses of all storages that left.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.sources: list[int] = []

    def copy_back(self, target: Tensor, source: Tensor) -> Ticket:
        self.sources.append(source.untyped_storage().data_ptr())
        target.fill_(NAN)
        return self._asked(target, source, leaving=True)

    def copy(self, target: Tensor, source: Tensor) -> Ticket:
        target.fill_(NAN)
        return self._asked(source, target, leaving=False)

    def wait(self, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        self.log.append((f"wait {ticket.direction}", ticket.size))
        self.settle(ticket)

    def settle(self, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        if ticket.done:
            return
        ticket.done = True
        host, device = _alive(ticket.host)[ticket.start : ticket.start + ticket.size], _alive(ticket.device)
        target, source = (host, device) if ticket.leaving else (device, host)
        target.copy_(source)

    def close(self) -> None:
        return None

    def _asked(self, host: Tensor, device: Tensor, *, leaving: bool) -> Ticket:
        ends = StorageWeakRef(host.untyped_storage()), StorageWeakRef(device.untyped_storage())
        ticket = Ticket(*ends, int(host.storage_offset()), len(host), leaving)
        self.log.append((ticket.direction, ticket.size))
        return ticket


def _alive(storage: StorageWeakRef) -> Tensor:
    assert not storage.expired(), "the memory was given back before its copy was waited for"
    found = torch.UntypedStorage._new_with_weak_ptr(storage.cdata)
    return torch.empty(0, dtype=torch.uint8).set_(found)
