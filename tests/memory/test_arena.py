from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from musubi.memory.arena import PAGE, Arena, chunks, regions
from tests.memory.locks import Locks


def blocks(count: int = 4, *, width: int = 200) -> list[list[Tensor]]:
    """Return blocks of three tensors of different types, none of a round size."""
    torch.manual_seed(0)
    return [
        [torch.randn(width, width), torch.randn(width, 7).bfloat16(), torch.randn(width, width).to(torch.float8_e4m3fn)]
        for _ in range(count)
    ]


def in_one_storage(count: int, *, between: int = 0, start: int = 0, rows: int = 256) -> list[list[Tensor]]:
    """Return blocks of two float32 matrices that lie one after the other, ``between`` bytes apart."""
    matrix = rows * 256 * 4
    size = count * 2 * (matrix + between) + start
    memory = torch.empty(size + 2 * PAGE, dtype=torch.uint8)
    first = -memory.data_ptr() % PAGE + start
    found = []
    for _ in range(count):
        block = []
        for _ in range(2):
            block.append(memory[first : first + matrix].view(torch.float32).view(rows, 256).normal_())
            first += matrix + between
        found.append(block)
    return found


def bits(tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [t.contiguous().reshape(-1).view(torch.uint8).clone() for block in tensors for t in block]


def test_blocks_keep_every_bit_and_become_one_buffer_each() -> None:
    model = blocks()
    before = bits(model)

    arena = Arena(model)

    assert all(map(torch.equal, bits(model), before))
    for block, master in zip(model, arena.masters, strict=True):
        assert master.flat.data_ptr() % PAGE == 0
        assert all(tensor.data_ptr() % 256 == 0 for tensor in block)
        assert {tensor.untyped_storage().data_ptr() for tensor in block} == {master.flat.untyped_storage().data_ptr()}
    assert not arena.pinned


def test_at_most_two_percent_more_is_pinned_than_streams() -> None:
    locks, model = Locks(), blocks(6, width=700)

    arena = Arena(model, registrar=locks)

    assert sum(locks.pinned.values()) == arena.pinned_bytes
    assert arena.nbytes == sum(tensor.nbytes for block in model for tensor in block)
    assert arena.pinned_bytes <= 1.02 * arena.nbytes
    arena.close()
    assert not locks.pinned
    assert not arena.pinned


def test_every_block_is_whole_in_a_region() -> None:
    arena = Arena(blocks(5))
    size = len(arena.masters[0].flat)

    for limit in (1, 2 * size, 100 * size):
        found = list(regions(arena.masters, limit=limit))
        for master in arena.masters:
            start, end = master.flat.data_ptr(), master.flat.data_ptr() + len(master.flat)
            assert sum(region.address <= start and end <= region.address + region.size for region in found) == 1
        assert limit == 1 or all(region.size <= max(limit, 2 * PAGE + size) for region in found)


@given(sizes=st.lists(st.integers(1, 50)), limit=st.integers(1, 80))
def test_chunks_keep_the_order_and_the_limit(sizes: list[int], limit: int) -> None:
    found = chunks(sizes, limit=limit)

    assert [size for group in found for size in group] == sizes
    assert all(sum(group) <= limit or len(group) == 1 for group in found)
    assert all(sum(one) + other[0] > limit for one, other in pairwise(found))


def test_where_pinning_fails_half_way_nothing_stays_pinned_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = [in_one_storage(1)[0] for _ in range(3)]
    locks = Locks(room=2 * sum(tensor.nbytes for tensor in model[0]))

    with caplog.at_level(logging.WARNING, logger="musubi"):
        arena = Arena(model, registrar=locks)

    assert locks.calls == 3
    assert not locks.pinned
    assert not arena.pinned
    assert "ulimit -l" in caplog.text


@pytest.mark.parametrize("between", [0, PAGE])
def test_blocks_that_lie_in_order_stay_where_they_are(between: int) -> None:
    lying, locks = in_one_storage(4, between=between, rows=1024), Locks()
    places, before = [tensor.data_ptr() for block in lying for tensor in block], bits(lying)

    arena = Arena(lying, registrar=locks)

    assert arena.adopted == 4
    assert [tensor.data_ptr() for block in lying for tensor in block] == places
    assert all(map(torch.equal, bits([master.views for master in arena.masters]), before))
    assert arena.pinned


@pytest.mark.parametrize(
    "lying",
    [
        in_one_storage(1, start=256),  # does not begin a page
        in_one_storage(1, between=64),  # what follows is not aligned
        in_one_storage(1, between=256 << 10),  # too much in between
        [[block[1], block[0]] for block in in_one_storage(1)],  # the other way round
        [[block[0], block[1].T] for block in in_one_storage(1)],  # not row by row
        [[in_one_storage(1)[0][0], in_one_storage(1)[0][1]]],  # two storages
    ],
)
def test_others_are_moved(lying: list[list[Tensor]]) -> None:
    before = bits(lying)

    arena = Arena(lying)

    assert arena.adopted == 0
    assert all(map(torch.equal, bits(lying), before))


def test_a_model_that_was_moved_once_is_not_moved_again() -> None:
    model = blocks()
    Arena(model)
    places = [tensor.data_ptr() for block in model for tensor in block]

    assert Arena(model).adopted == len(model)
    assert [tensor.data_ptr() for block in model for tensor in block] == places
    assert Arena(model, adopt=False).adopted == 0


PEAK = """
import json, sys
from pathlib import Path
import torch
from musubi.memory.arena import Arena

def status(name):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name))
    return int(line.split()[1]) * 1024

MATRIX = 8 << 20
model = [torch.nn.ParameterList(torch.ones(MATRIX // 4) for _ in range(3)) for _ in range(8)]
loaded = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
arena = Arena([list(block) for block in model])
print(json.dumps({"more": status("VmHWM") - loaded, "block": 3 * MATRIX, "after": status("VmRSS") - loaded}))
"""


def test_moving_takes_one_block_more_than_the_model() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak of memory")

    ran = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True, timeout=120)
    told = json.loads(ran.stdout)

    assert told["more"] < 1.1 * told["block"] + (4 << 20)
    assert told["after"] < 4 << 20


def test_parameters_keep_their_identity() -> None:
    linear = nn.Linear(8, 8)
    weight, hash_before = linear.weight, id(linear.weight)

    Arena([[linear.weight]])

    assert linear.weight is weight
    assert id(linear.weight) == hash_before
