from __future__ import annotations

import logging

import pytest

from musubi.memory.arena import PAGE
from musubi.memory.host_pool import HostPool


class Pins:
    """Pin up to ``limit`` bytes, and remember what is pinned."""

    def __init__(self, limit: int = 1 << 40) -> None:
        self.pinned: dict[int, int] = {}
        self._limit = limit

    def register(self, address: int, size: int) -> bool:
        assert address % PAGE == size % PAGE == 0
        if sum(self.pinned.values()) + size > self._limit:
            return False
        self.pinned[address] = size
        return True

    def unregister(self, address: int) -> None:
        del self.pinned[address]


def test_pieces_in_use_never_overlap() -> None:
    pool = HostPool()

    pieces = [pool.take(size) for size in (1000, PAGE, 7, 3 * PAGE)]
    for number, piece in enumerate(pieces):
        piece.data.fill_(number)

    assert [len(piece.data) for piece in pieces] == [1000, PAGE, 7, 3 * PAGE]
    assert all(bool((piece.data == number).all()) for number, piece in enumerate(pieces))


def test_the_second_pass_lies_in_one_stretch_and_later_ones_in_the_same() -> None:
    pins = Pins()
    pool = HostPool(pins)
    sizes = (PAGE, 300, 2 * PAGE)

    first = [pool.take(size) for size in sizes]
    assert len(pins.pinned) == 3
    del first
    second = [pool.take(size) for size in sizes]
    addresses = [piece.data.data_ptr() for piece in second]

    assert len(pins.pinned) == 1
    assert pool.nbytes == sum(pins.pinned.values()) == 4 * PAGE
    del second
    assert [piece.data.data_ptr() for piece in [pool.take(size) for size in sizes]] == addresses


def test_a_larger_pass_makes_it_grow_once_and_a_smaller_one_leaves_it() -> None:
    pool = HostPool()
    for count in (2, 5, 3):
        for _ in range(2):
            pieces = [pool.take(PAGE) for _ in range(count)]
            del pieces

    assert pool.nbytes == 5 * PAGE


def test_what_is_in_use_keeps_its_bytes_while_others_come() -> None:
    pool = HostPool()
    kept = pool.take(PAGE)
    kept.data.fill_(7)

    for _ in range(3):
        pool.take(PAGE).data.fill_(1)

    assert bool((kept.data == 7).all())


def test_copies_are_waited_for_before_memory_is_given_back() -> None:
    order: list[str] = []

    class Told(Pins):
        def unregister(self, address: int) -> None:
            order.append("unpinned")
            super().unregister(address)

    pool = HostPool(Told(), settle=lambda: order.append("settled"))
    pieces = [pool.take(PAGE), pool.take(PAGE)]
    del pieces
    pool.take(PAGE)
    pool.close()

    assert order == ["settled", "unpinned", "unpinned", "settled", "unpinned"]


def test_memory_that_cannot_be_pinned_serves_as_well_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    pins = Pins(limit=PAGE)

    with caplog.at_level(logging.WARNING):
        pool = HostPool(pins)
        pieces = [pool.take(PAGE) for _ in range(3)]

    assert len(pins.pinned) == 1
    assert len(pieces) == 3
    assert [record.getMessage().startswith("cannot pin") for record in caplog.records] == [True]
    pool.close()
    assert not pins.pinned


def test_passes_of_other_pieces_and_about_the_same_bytes_pin_nothing_again() -> None:
    pins, chunk = Pins(), 40 * PAGE
    pool = HostPool(pins, chunk=chunk)
    kinds = ([3 * PAGE] * 30, [7 * PAGE] * 12)
    for sizes in (*kinds, *kinds):
        pieces = [pool.take(size) for size in sizes]
        del pieces
    pinned = dict(pins.pinned)

    for sizes in (*kinds, *kinds):
        pieces = [pool.take(size) for size in sizes]
        assert pins.pinned == pinned
        del pieces


def test_while_something_stays_in_use_what_comes_back_is_handed_out_again() -> None:
    pool = HostPool()
    kept = pool.take(PAGE)
    kept.data.fill_(7)

    for count in range(5):
        pieces = [pool.take(size) for size in (PAGE, 3 * PAGE)]
        for piece in pieces:
            piece.data.fill_(count)
        del piece, pieces

    assert pool.nbytes == 5 * PAGE
    assert bool((kept.data == 7).all())
