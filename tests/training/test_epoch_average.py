from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.training.epoch_average import EpochAverage

losses = st.floats(-100, 100)


@given(first=st.lists(losses, min_size=1), later=st.lists(losses))
def test_it_is_the_mean_of_the_newest_loss_at_each_place_of_an_epoch(first: list[float], later: list[float]) -> None:
    average = EpochAverage()
    for loss in first:
        average.add(0, loss)
    for loss in later:
        average.add(1, loss)

    newest = [*later, *first[len(later) :]]
    assert average.mean == pytest.approx(sum(newest) / len(newest), abs=1e-9)


def test_what_is_not_finite_does_not_spoil_it() -> None:
    average = EpochAverage()

    assert math.isnan(average.mean)
    assert [average.add(0, loss) for loss in (1.0, math.nan, 3.0)] == [1.0, 1.0, 2.0]


def test_after_a_resume_in_the_middle_it_begins_anew() -> None:
    average = EpochAverage()

    assert [average.add(epoch, loss) for epoch, loss in [(4, 2.0), (4, 4.0), (5, 6.0)]] == [2.0, 3.0, 5.0]
