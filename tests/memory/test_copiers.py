"""Copiers; what staging does is told apart from CUDA by a device that is slow, late and checks its rights."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

import pytest
import torch
from torch import Tensor

from musubi.memory.arena import Arena
from musubi.memory.copiers import Copier, HostCopier, ReturningCopier, StagedCopier, Timed
from tests.memory.copiers import NAN
from tests.memory.queued_copier import QueuedCopier

SIZE = 512


class SlowDevice:
    """Copy in order, from a thread, after random delays, and note what staging asks for."""

    def __init__(self, longest_s: float = 3e-3) -> None:
        self._worker, self._random, self._longest_s = ThreadPoolExecutor(1), Random(0), longest_s
        self.clock = 0
        self.copied: list[tuple[int, int]] = []
        self.closed = False

    def moment(self) -> int:
        self.clock += 1
        return self.clock

    def copy_after(self, moment: int, target: Tensor, source: Tensor) -> Future[None]:
        self.copied.append((moment, source.data_ptr()))
        return self._worker.submit(self._later, target, source)

    def wait(self, ticket: Future[None]) -> None:
        ticket.result()

    def settle(self, ticket: Future[None]) -> None:
        ticket.result()

    def close(self) -> None:
        self._worker.shutdown(wait=True)
        self.closed = True

    def _later(self, target: Tensor, source: Tensor) -> None:
        target.fill_(NAN)
        time.sleep(self._random.random() * self._longest_s)
        target.copy_(source)


def masters(count: int) -> list[Tensor]:
    return [torch.full((SIZE - 16 * index,), index + 1, dtype=torch.uint8) for index in range(count)]


def test_staged_copies_arrive_whole_and_in_order_through_two_buffers() -> None:
    device = SlowDevice()
    copier, hosts = StagedCopier(device, SIZE, pinned=False), masters(12)
    slots = [torch.zeros_like(host) for host in hosts]

    tickets = [copier.copy(slot, host) for slot, host in zip(slots, hosts, strict=True)]
    for ticket, slot, host in zip(tickets, slots, hosts, strict=True):
        copier.wait(ticket)
        assert torch.equal(slot, host)

    copier.close()
    assert [moment for moment, _ in device.copied] == list(range(1, 13))
    assert len({source for _, source in device.copied}) == 2
    assert device.closed


def test_a_staged_copy_waits_for_what_was_computed_before_it_was_asked_for() -> None:
    device = SlowDevice()
    copier, (host,) = StagedCopier(device, SIZE, pinned=False), masters(1)

    ticket = copier.copy(torch.zeros_like(host), host)
    device.moment()  # something is computed while the thread still fills a buffer
    copier.wait(ticket)

    assert device.copied[0][0] == 1


def test_staged_blocks_come_back_and_can_be_fetched_again() -> None:
    copier, hosts = StagedCopier(SlowDevice(), SIZE, pinned=False), masters(6)
    slot = torch.zeros(SIZE, dtype=torch.uint8)

    for turn in range(3):
        for index, host in enumerate(hosts):
            copier.wait(copier.copy(slot[: len(host)], host))
            assert (slot[: len(host)] == index + 1 + turn).all()
            slot += 1
            back = copier.copy_back(host, slot[: len(host)])
            copier.settle(back)
            assert (host == index + 2 + turn).all()
    copier.close()


def test_what_fails_in_the_thread_is_raised_where_it_is_waited_for() -> None:
    copier = StagedCopier(SlowDevice(), SIZE, pinned=False)

    ticket = copier.copy(torch.zeros(4, dtype=torch.uint8), torch.zeros(8, dtype=torch.uint8))

    with pytest.raises(RuntimeError, match="size"):
        copier.wait(ticket)
    copier.close()


@pytest.mark.parametrize("make", [HostCopier, QueuedCopier, lambda: StagedCopier(SlowDevice(), SIZE, pinned=False)])
def test_all_copiers_go_both_ways(make: Callable[[], Copier]) -> None:
    copier, (host,) = make(), masters(1)
    slot = torch.zeros_like(host)

    assert isinstance(copier, ReturningCopier)
    copier.wait(copier.copy(slot, host))
    copier.settle(copier.copy_back(host, slot.add_(1)))

    assert (host == 2).all()
    assert not isinstance(copier, Timed)
    copier.close()


def test_memory_that_is_not_pinned_is_staged() -> None:
    tensors = [[torch.randn(64, 64)] for _ in range(3)]
    arena = Arena(tensors)
    copier = StagedCopier(SlowDevice(), max(len(master.flat) for master in arena.masters), pinned=False)

    slot = torch.empty_like(arena.masters[0].flat)
    for master, (tensor,) in zip(arena.masters, tensors, strict=True):
        copier.wait(copier.copy(slot, master.flat))
        assert torch.equal(slot.view(torch.float32).view(64, 64), tensor)
    copier.close()
