from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from musubi.cache.order import Key, Order

GROUPS = st.dictionaries(st.tuples(st.integers(16, 64), st.integers(16, 64)), st.integers(1, 7), min_size=1, max_size=4)


def ordered(counts: dict[tuple[int, int], int], size: int, seed: int) -> Order[str]:
    groups: dict[Key, list[str]] = {key: [f"{key}-{n}" for n in range(count)] for key, count in counts.items()}
    return Order(groups, dict.fromkeys(groups, size), seed=seed)


@given(counts=GROUPS, size=st.integers(1, 4), seed=st.integers(0, 2**40), epoch=st.integers(0, 30))
def test_an_epoch_has_every_unit_once_in_full_batches_but_for_the_rest_of_a_group(
    counts: dict[tuple[int, int], int], size: int, seed: int, epoch: int
) -> None:
    batches = ordered(counts, size, seed).epoch(epoch)

    assert Counter(len(batch) for batch in batches) == Counter(
        length for count in counts.values() for length in [size] * (count // size) + [count % size] * bool(count % size)
    )
    drawn = [unit for batch in batches for unit in batch]
    assert len(set(drawn)) == len(drawn) == sum(counts.values())
    assert all(len({unit.rpartition("-")[0] for unit in batch}) == 1 for batch in batches)


@given(counts=GROUPS, seed=st.integers(0, 99), epochs=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_an_epoch_is_the_same_whichever_was_asked_for_before(
    counts: dict[tuple[int, int], int], seed: int, epochs: list[int]
) -> None:
    order = ordered(counts, 2, seed)

    assert [order.epoch(n) for n in epochs] == [ordered(counts, 2, seed).epoch(n) for n in epochs]
