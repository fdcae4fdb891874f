from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.memory.schedule import Schedule, Turn, Turns, spread, weighted

turns = st.integers(1, 60).flatmap(lambda n: st.builds(Turns, st.just(n), st.integers(1, min(n, 4))))
schedules = st.builds(
    lambda layouts, slots, lag: Schedule.of(layouts, slots=slots, lag=lag),
    st.lists(st.integers(0, 2), min_size=1, max_size=40),
    st.integers(1, 4),
    st.integers(0, 1),
)


@given(blocks=st.integers(1, 80), data=st.data())
def test_streamed_blocks_are_spread_evenly(blocks: int, data: st.DataObject) -> None:
    streamed = data.draw(st.integers(1, blocks))

    chosen = spread(streamed, blocks)

    gaps = [second - first for first, second in pairwise(chosen)]
    assert all(0 <= index < blocks for index in chosen)
    assert all(gap >= 1 for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(blocks=st.integers(1, 80), size=st.integers(1, 10**9), data=st.data())
def test_blocks_of_one_size_are_spread_evenly(blocks: int, size: int, data: st.DataObject) -> None:
    streamed = data.draw(st.integers(1, blocks))

    assert weighted(streamed, [size] * blocks) == spread(streamed, blocks)


@given(sizes=st.lists(st.sampled_from([0, 1, 3, 7, 24]), min_size=1, max_size=40), data=st.data())
def test_as_many_blocks_stream_as_are_wanted_and_have_weights(sizes: list[int], data: st.DataObject) -> None:
    streamed = data.draw(st.integers(1, len(sizes)))

    chosen = weighted(streamed, sizes)

    assert len(chosen) == min(streamed, sum(size > 0 for size in sizes))
    assert list(chosen) == sorted(set(chosen))
    assert all(sizes[index] for index in chosen)


@pytest.mark.parametrize("streamed", [6, 12, 20, 30])
def test_double_blocks_stream_as_much_less_often_as_they_are_larger(streamed: int) -> None:
    sizes = [24] * 20 + [10] * 40

    chosen = weighted(streamed, sizes)

    doubles = sum(index < 20 for index in chosen)
    rates = doubles / 20, (streamed - doubles) / 40
    assert rates[1] / rates[0] == pytest.approx(2.4, rel=0.35)
    assert doubles == pytest.approx(streamed * (20 / 24) / (20 / 24 + 40 / 10), abs=0.5)


def test_where_all_small_blocks_stream_already_the_large_ones_fill_up() -> None:
    assert weighted(50, [24] * 20 + [10] * 40) == (*spread(10, 20), *range(20, 60))


@given(schedule=schedules, steps=st.integers(1, 4))
def test_a_step_copies_twice_the_blocks_that_have_no_slot(schedule: Schedule, steps: int) -> None:
    ring = _Simulated(schedule)
    without_slot = sum(ring_turns.blocks - ring_turns.slots for ring_turns in schedule.rings)

    for step in range(steps):
        before = ring.copies, ring.unforeseen
        ring.forward(again=False)
        ring.backward()
        assert ring.copies - before[0] == 2 * without_slot + (0 if step else len(ring.holds))
        assert step == 0 or ring.unforeseen - before[1] == 0 or any(t.slots == 1 and t.lag for t in schedule.rings)


@given(schedule=schedules)
def test_generation_after_generation_finds_its_first_blocks_loaded(schedule: Schedule) -> None:
    ring = _Simulated(schedule)
    ring.forward(again=True)
    before = ring.copies, ring.unforeseen

    ring.forward(again=True)

    assert ring.unforeseen == before[1]
    alone = sum(max(0, 2 * t.slots - t.blocks) for t in schedule.rings)  # have a slot to themselves
    assert ring.copies - before[0] == len(schedule.turns) - alone


@given(schedule=schedules, passes=st.lists(st.sampled_from(["forward", "generation", "backward", "half"]), max_size=8))
def test_whatever_happens_every_block_computes_in_its_own_slot(schedule: Schedule, passes: list[str]) -> None:
    ring = _Simulated(schedule)
    for what in passes:
        if what == "backward":
            ring.backward()
        else:
            ring.forward(again=what == "generation", upto=len(schedule.turns) // (2 if what == "half" else 1))

    owners: dict[tuple[int, int], set[int]] = {}
    for turn, slot in ring.used:
        assert slot == schedule.rings[turn.ring].slot(turn.rank)
        owners.setdefault((turn.ring, turn.rank), set()).add(slot)
    assert all(len(slots) == 1 for slots in owners.values())


@given(turns=turns)
def test_nothing_is_loaded_into_the_slot_of_a_block_that_comes_sooner(turns: Turns) -> None:
    for rank in range(turns.blocks):
        assert all(follower > rank for follower in turns.after_forward(rank, again=False))
        assert all(follower < rank for follower in turns.after_backward(rank))
        assert all(turns.slot(follower) == turns.slot(rank) for follower in turns.after_forward(rank, again=True))


@given(blocks=st.integers(3, 40))
def test_with_a_lag_a_block_stays_while_the_next_is_differentiated(blocks: int) -> None:
    turns = Turns(blocks, 3, lag=1)

    for rank in range(blocks):
        assert all(turns.slot(follower) == turns.slot(rank + 1) for follower in turns.after_backward(rank))


@given(layouts=st.lists(st.text("ab", max_size=1), min_size=1, max_size=20))
def test_blocks_of_one_layout_share_a_ring_in_the_models_order(layouts: list[str]) -> None:
    schedule = Schedule.of(layouts, slots=2)

    for ring in schedule.numbers:
        members = list(schedule.members(ring))
        assert len({layouts[place] for place in members}) == 1
        assert [schedule.turns[place] for place in members] == [Turn(ring, rank) for rank in range(len(members))]
    assert len(schedule.rings) == len(set(layouts))


class _Simulated:
    """Rings without tensors that count copies, and those that nobody had foreseen."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.holds = {(n, slot): -1 for n, ring in enumerate(schedule.rings) for slot in range(ring.slots)}
        self.used: list[tuple[Turn, int]] = []
        self.copies = self.unforeseen = 0

    def forward(self, *, again: bool, upto: int | None = None) -> None:
        for turn in self.schedule.turns[:upto]:
            self._use(turn)
            self._load(turn, self.schedule.rings[turn.ring].after_forward(turn.rank, again=again))

    def backward(self) -> None:
        for turn in reversed(self.schedule.turns):
            self._use(turn)
            self._load(turn, self.schedule.rings[turn.ring].after_backward(turn.rank))

    def _use(self, turn: Turn) -> None:
        before = self.copies
        self._load(turn, (turn.rank,))
        self.unforeseen += self.copies - before
        slot = self.schedule.rings[turn.ring].slot(turn.rank)
        assert self.holds[turn.ring, slot] == turn.rank
        assert list(self.holds.values()).count(turn.rank) <= len(self.schedule.rings)
        self.used.append((turn, slot))

    def _load(self, turn: Turn, ranks: tuple[int, ...]) -> None:
        for rank in ranks:
            slot = turn.ring, self.schedule.rings[turn.ring].slot(rank)
            self.copies += self.holds[slot] != rank
            self.holds[slot] = rank
