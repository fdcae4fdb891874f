"""How bytes get from host memory into a slot and back: the only part of block swap that knows a kind of device."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

Moment = TypeVar("Moment")
Ticket = TypeVar("Ticket")


class Copier(Protocol):
    """Copy from the host into slots, in the order asked for."""

    def copy(self, target: Tensor, source: Tensor) -> object:
        """Begin a copy that starts after all computation asked for so far; return a ticket."""
        ...

    def wait(self, ticket: object) -> None:
        """Let computation asked for from now on start after the ticket's copy."""
        ...

    def close(self) -> None:
        """Return when no copy is under way."""
        ...


@runtime_checkable
class ReturningCopier(Copier, Protocol):
    """Copy back to the host as well, for blocks that are trained."""

    def copy_back(self, target: Tensor, source: Tensor) -> object:
        """Begin a copy from a slot to the host after all computation asked for so far; return a ticket."""
        ...

    def settle(self, ticket: object) -> None:
        """Return when the ticket's copy is done, so that the host may read its target."""
        ...


@runtime_checkable
class Timed(Protocol):
    """Know how long a device stood still for copies, which the processor does not notice."""

    def stalled_s(self) -> float:
        """Return the seconds so far, of the waits that are over."""
        ...


class DeviceCopier(Protocol[Moment, Ticket]):
    """What staging needs of a device: copies that start after a moment, asked for from another thread."""

    def moment(self) -> Moment:
        """Return a mark behind all computation asked for so far."""
        ...

    def copy_after(self, moment: Moment, target: Tensor, source: Tensor) -> Ticket:
        """Begin a copy between the device and pinned memory that starts after a moment; return a ticket."""
        ...

    def wait(self, ticket: Ticket) -> None:
        """Let computation asked for from now on start after the ticket's copy."""
        ...

    def settle(self, ticket: Ticket) -> None:
        """Return when the ticket's copy is done."""
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

    def copy_back(self, target: Tensor, source: Tensor) -> None:
        target.copy_(source)

    def settle(self, ticket: object) -> None:
        return None

    def close(self) -> None:
        return None


class CudaCopier:
    """Copy on a stream of its own, ordered with the computation by events; the processor waits in ``settle`` only.

    Host memory must be pinned. Copies of one copier are done in the order asked for, in both directions.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._stalls: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._stalled_s = 0.0

    def moment(self) -> torch.cuda.Event:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def copy_after(self, moment: torch.cuda.Event, target: Tensor, source: Tensor) -> torch.cuda.Event:
        self._stream.wait_event(moment)
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._stream)
        return done

    def copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event:
        return self.copy_after(self.moment(), target, source)

    def copy_back(self, target: Tensor, source: Tensor) -> torch.cuda.Event:
        return self.copy_after(self.moment(), target, source)

    def wait(self, ticket: object) -> None:
        if not isinstance(ticket, torch.cuda.Event) or ticket.query():
            return
        stream = torch.cuda.current_stream(self._device)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record(stream)
        stream.wait_event(ticket)
        after.record(stream)
        self._stalls.append((before, after))
        self._measure()

    def settle(self, ticket: object) -> None:
        if isinstance(ticket, torch.cuda.Event):
            ticket.synchronize()

    def stalled_s(self) -> float:
        self._measure()
        return self._stalled_s

    def close(self) -> None:
        self._stream.synchronize()

    def _measure(self) -> None:
        """Add up the waits that the device has behind it."""
        while self._stalls and self._stalls[0][1].query():
            before, after = self._stalls.popleft()
            self._stalled_s += before.elapsed_time(after) / 1e3


class StagedCopier(Generic[Moment, Ticket]):
    """Copy from host memory that is not pinned, by way of a few pinned buffers that a thread fills.

    The thread copies a block into a buffer while the device is still fetching the one before it. ``device`` is a
    ``DeviceCopier``, ``size`` the bytes of the largest block.
    """

    def __init__(
        self, device: DeviceCopier[Moment, Ticket], size: int, *, buffers: int = 2, pinned: bool = True
    ) -> None:
        self._device: DeviceCopier[Moment, Ticket] = device
        # The allocator's rounding to a power of two does not matter here: there are two buffers, not forty.
        self._buffers = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(buffers)]
        self._fetched: list[Ticket | None] = [None] * buffers
        self._taken = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="musubi-staging")

    def copy(self, target: Tensor, source: Tensor) -> Future[Ticket]:
        return self._worker.submit(self._stage, self._device.moment(), target, source)

    def copy_back(self, target: Tensor, source: Tensor) -> Future[None]:
        return self._worker.submit(self._unstage, self._device.moment(), target, source)

    def wait(self, ticket: object) -> None:
        """Wait for the thread to have asked for the copy, and let computation wait for the copy itself."""
        if isinstance(ticket, Future):
            self._device.wait(_result(ticket))

    def settle(self, ticket: object) -> None:
        if isinstance(ticket, Future):
            done = _result(ticket)
            if done is not None:  # a copy back is settled by the thread itself
                self._device.settle(done)

    def close(self) -> None:
        self._worker.shutdown(wait=True)
        self._device.close()

    def _stage(self, moment: Moment, target: Tensor, source: Tensor) -> Ticket:
        index, buffer = self._free(len(source))
        buffer.copy_(source)
        self._fetched[index] = ticket = self._device.copy_after(moment, target, buffer)
        return ticket

    def _unstage(self, moment: Moment, target: Tensor, source: Tensor) -> None:
        _, buffer = self._free(len(source))
        self._device.settle(self._device.copy_after(moment, buffer, source))
        target.copy_(buffer)

    def _free(self, size: int) -> tuple[int, Tensor]:
        """Return the buffer used longest ago, once the device has fetched what was in it."""
        index, self._taken = self._taken % len(self._buffers), self._taken + 1
        last, self._fetched[index] = self._fetched[index], None
        if last is not None:
            self._device.settle(last)
        return index, self._buffers[index][:size]


def _result(ticket: Future[Any]) -> Any:
    return ticket.result()
