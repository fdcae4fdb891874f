from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from musubi.memory.schedule import Turns, spread

turns = st.integers(1, 60).flatmap(lambda n: st.builds(Turns, st.just(n), st.integers(1, min(n, 4))))


@given(blocks=st.integers(1, 80), data=st.data())
def test_streamed_blocks_are_spread_evenly(blocks: int, data: st.DataObject) -> None:
    streamed = data.draw(st.integers(1, blocks))

    chosen = spread(streamed, blocks)

    gaps = [second - first for first, second in pairwise(chosen)]
    assert all(0 <= index < blocks for index in chosen)
    assert all(gap >= 1 for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(turns=turns, steps=st.integers(1, 4))
def test_a_step_copies_twice_the_blocks_that_have_no_slot(turns: Turns, steps: int) -> None:
    ring = _Simulated(turns)

    for _ in range(steps):
        ring.forward(again=False)
        ring.backward()

    assert ring.unforeseen == turns.slots
    assert ring.copies == turns.slots + steps * 2 * (turns.blocks - turns.slots)


@given(turns=turns)
def test_generation_after_generation_finds_its_first_blocks_loaded(turns: Turns) -> None:
    ring = _Simulated(turns)
    ring.forward(again=True)
    unforeseen = ring.unforeseen

    ring.forward(again=True)

    assert ring.unforeseen == unforeseen


class _Simulated:
    """A ring without tensors that counts copies, and those that nobody had foreseen."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.holds = turns, dict.fromkeys(range(turns.slots), -1)
        self.copies = self.unforeseen = 0

    def forward(self, *, again: bool) -> None:
        for rank in range(self.turns.blocks):
            self._use(rank)
            self._load(self.turns.after_forward(rank, again=again))

    def backward(self) -> None:
        for rank in reversed(range(self.turns.blocks)):
            self._use(rank)
            self._load(self.turns.after_backward(rank))

    def _use(self, rank: int) -> None:
        before = self.copies
        self._load((rank,))
        self.unforeseen += self.copies - before

    def _load(self, ranks: tuple[int, ...]) -> None:
        for rank in ranks:
            slot = self.turns.slot(rank)
            self.copies += self.holds[slot] != rank
            self.holds[slot] = rank
