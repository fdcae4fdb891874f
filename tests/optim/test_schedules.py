from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.optim.schedules import Constant, Cosine, Linear, Schedule

warmups = st.one_of(st.integers(0, 50), st.floats(0, 0.99))
schedules = st.one_of(
    st.builds(Constant, warmup=warmups),
    st.builds(Linear, warmup=warmups),
    st.builds(Cosine, warmup=warmups, min_ratio=st.floats(0, 1)),
)


@given(schedule=schedules, total=st.integers(1, 200), data=st.data())
def test_every_factor_of_a_run_lies_between_zero_and_one(schedule: Schedule, total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))

    assert 0 <= schedule.factor(step, total) <= 1


@given(schedule=schedules)
def test_a_schedule_survives_toml(schedule: Schedule) -> None:
    again = Schedule.from_toml(schedule.to_toml())

    assert again == schedule
    assert type(again.warmup) is type(schedule.warmup)


def test_warm_up_starts_at_zero_and_reaches_the_peak() -> None:
    assert [Constant(warmup=4).factor(step, 10) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_a_share_of_the_run_is_the_same_as_its_steps() -> None:
    shares = [Cosine(warmup=0.1).factor(step, 200) for step in range(200)]

    assert shares == [Cosine(warmup=20).factor(step, 200) for step in range(200)]


def test_cosine_ends_at_its_minimum() -> None:
    assert math.isclose(Cosine(warmup=10, min_ratio=0.1).factor(100, 100), 0.1)


@pytest.mark.parametrize("warmup", [-1, 1.0, 1.5, -0.1, True])
def test_an_impossible_warm_up_is_refused(warmup: float) -> None:
    with pytest.raises(ConfigError, match="warmup"):
        Constant(warmup=warmup)


def test_torchs_form_has_the_same_rates_and_resumes() -> None:
    schedule = Cosine(warmup=3, min_ratio=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule.build(optimizer, 10)
    rates: list[float] = []
    for step in range(10):
        if step == 5:
            state = scheduler.state_dict()
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
            scheduler = schedule.build(optimizer, 10)
            scheduler.load_state_dict(state)
            optimizer.param_groups[0]["lr"] = scheduler.get_last_lr()[0]
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert rates == [2.0 * schedule.factor(step, 10) for step in range(10)]
