from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from musubi.training.counting import due_epoch, epoch_ends, epochs_completed, total_steps

small = st.integers(1, 12)


@given(epochs=small, batches=small, accumulate=small, processes=st.integers(1, 4))
def test_the_steps_are_just_enough_for_every_batch_of_the_epochs(
    epochs: int, batches: int, accumulate: int, processes: int
) -> None:
    steps = total_steps(epochs, batches, accumulate=accumulate, processes=processes)

    assert (steps - 1) * accumulate * processes < epochs * batches <= steps * accumulate * processes


@given(steps=small, batches=small, accumulate=small, processes=st.integers(1, 4))
def test_every_epoch_ends_exactly_once_with_the_step_that_takes_its_last_batch(
    steps: int, batches: int, accumulate: int, processes: int
) -> None:
    sequence = [number // batches + 1 for number in range(steps * accumulate * processes + 1)]
    ends = [list(epoch_ends(step, batches, accumulate=accumulate, processes=processes)) for step in range(1, steps + 1)]

    last_batches = {epoch: place for place, epoch in enumerate(sequence[:-1]) if sequence[place + 1] != epoch}
    expected = [
        [epoch for epoch, place in last_batches.items() if place // (accumulate * processes) == step]
        for step in range(steps)
    ]
    assert ends == expected
    assert len(list(itertools.chain(*ends))) == epochs_completed(
        steps, batches, accumulate=accumulate, processes=processes
    )


@given(epochs=small, batches=small, accumulate=small)
def test_two_processes_with_half_the_accumulation_end_epochs_at_the_same_steps(
    epochs: int, batches: int, accumulate: int
) -> None:
    for step in range(1, epochs * 3):
        alone = epoch_ends(step, batches, accumulate=2 * accumulate)
        assert epoch_ends(step, batches, accumulate=accumulate, processes=2) == alone


def test_a_step_runs_on_into_the_next_epoch_where_the_reference_would_take_a_short_one() -> None:
    batches, accumulate, epochs = 5, 2, 4

    assert total_steps(epochs, batches, accumulate=accumulate) == 10  # the reference takes 4 * ceil(5 / 2) = 12
    assert epoch_ends(3, batches, accumulate=accumulate) == range(1, 2)
    assert epoch_ends(5, batches, accumulate=accumulate) == range(2, 3)


def test_what_is_due_every_few_epochs_is_due_once_even_if_a_step_ends_several() -> None:
    assert due_epoch(2, epoch_ends(1, 2, accumulate=13)) == 6
    assert due_epoch(4, range(5, 8)) is None
    assert due_epoch(None, range(1, 4)) is None
    assert due_epoch(1, range(3, 3)) is None
